"""The description of the machine and of the versions: plain values, whatever is installed."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from uiat.system import environment
from uiat.system.environment import describe_environment


def test_the_description_is_plain_json():
    facts = describe_environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cores"] >= 1
    assert facts["processor"]


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


def repository(folder, *, track):
    """A git repository with a copy of the module in it, as source or inside an environment that is not tracked."""
    folder.mkdir()
    place = folder / ("src/uiat/system" if track else ".venv/lib/site-packages/uiat/system")
    place.mkdir(parents=True)
    (place / "environment.py").write_text(Path(environment.__file__).read_text())
    (folder / "own.py").write_text("x = 1")
    for words in (["init", "-q"], ["add", "src" if track else "own.py"], [*AUTHOR, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return place / "environment.py"


AUTHOR = ["-c", "user.name=a", "-c", "user.email=a@b"]


@pytest.mark.parametrize("change", [None, "own.py", "environment.py"])
@pytest.mark.parametrize("track", [True, False])
def test_the_commit_is_that_of_the_package_and_never_of_what_surrounds_it(tmp_path, monkeypatch, track, change):
    module = repository(tmp_path / "repository", track=track)
    monkeypatch.setattr(environment, "__file__", str(module))
    if change is not None:
        path = module if change == module.name else tmp_path / "repository" / change
        path.write_text(path.read_text() + "# changed")
    commit = describe_environment()["commit"]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path / "repository", capture_output=True, text=True, check=True
    ).stdout.strip()
    assert commit == (head + ("+" if change == "environment.py" else "") if track else None)


def test_a_repository_named_by_the_surroundings_is_not_asked(tmp_path, monkeypatch):
    module = repository(tmp_path / "repository", track=False)
    monkeypatch.setattr(environment, "__file__", str(module))
    monkeypatch.setenv("GIT_DIR", str(Path(__file__).parents[2] / ".git"))
    assert describe_environment()["commit"] is None
