"""The description of the machine and of the versions: plain values, whatever is installed."""

import json
import subprocess

import torch

from uiat.system import environment
from uiat.system.environment import describe_environment, installed_version


def test_the_description_is_plain_json():
    facts = describe_environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cores"] >= 1
    assert facts["processor"]


def test_a_package_that_is_not_installed_has_no_version():
    assert installed_version("no-such-package-anywhere") is None
    assert installed_version("numpy")


def test_outside_a_checkout_there_is_no_commit(monkeypatch):
    def fail(*args, **options):
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(environment.subprocess, "run", fail)
    assert describe_environment()["commit"] is None


def test_changed_files_are_marked_on_the_commit(monkeypatch):
    answers = {"rev-parse": "abc", "status": " M file"}
    monkeypatch.setattr(environment, "_git", lambda folder, word, *more: answers[word])
    assert describe_environment()["commit"] == "abc+"
    answers["status"] = ""
    assert describe_environment()["commit"] == "abc"
