"""A run that is resumed elsewhere: its sums are its own, and what changes its last digits is said."""

import json
import logging

import pytest
import torch

import uiat
from support import tiny
from uiat.objectives import Standard
from uiat.runs.folder import make_folder, restore_environment
from uiat.system.distributed import Rank
from uiat.system.environment import describe_environment
from uiat.system.manifest import write_recorded
from uiat.training import resumption
from uiat.training.resumption import own_sum, warn_of_changes


@pytest.mark.parametrize(
    ("sums", "rank", "expected"),
    [
        ([0.1, 0.7], Rank(0, 2), 0.1),
        ([0.1, 0.7], Rank(1, 2), 0.7),
        ([1.0, 2.0], Rank(0, 1), 1.5),
        ([1.0, 2.0], Rank(2, 3), 1.5),
        ([3.0], Rank(0, 1), 3.0),
        (3.0, Rank(1, 2), 3.0),
    ],
)
def test_each_process_goes_on_from_its_own_sum(monkeypatch, sums, rank, expected):
    monkeypatch.setattr(resumption, "current_rank", lambda: rank)
    assert own_sum(torch.tensor(sums, dtype=torch.float64)).item() == expected


@pytest.mark.parametrize(
    ("changed", "device", "warned"),
    [
        ({"threads": 77}, "cpu", "threads: 77 then"),
        ({"torch": "1.0"}, "cpu", "torch: 1.0 then"),
        ({"processor": "abacus"}, "cpu", "processor: abacus then"),
        ({"device_names": ["GPU 0"]}, "cuda", "device_names: ['GPU 0'] then"),
        ({"threads": 77}, "cuda", None),
        ({"python": "2.7", "commit": "abc"}, "cpu", None),
        ({"threads": [1]}, "cpu", "threads: [1] then"),
        ({}, "cpu", None),
    ],
)
def test_what_changes_the_last_digits_is_said(caplog, changed, device, warned):
    warn_of_changes(describe_environment() | changed, torch.device(device), processes=1)
    assert (warned in caplog.text) if warned else caplog.text == ""


def test_another_number_of_processes_is_said(caplog):
    warn_of_changes({}, torch.device("cpu"), processes=4)
    assert "began in 4 processes and resumes in 1" in caplog.text


def test_a_run_resumed_with_other_threads_warns_and_one_with_the_same_does_not(tmp_path, caplog):
    uiat.train(tiny.run(epochs=1, objective=Standard()), run_dir=tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    uiat.resume(tmp_path / "run")
    assert "environment" not in caplog.text
    write_recorded(path, json.dumps(json.loads(path.read_text()) | {"threads": 99}).encode())
    uiat.resume(tmp_path / "run")
    (said,) = (record for record in caplog.records if "environment" in record.getMessage())
    assert said.levelno == logging.WARNING
    assert "threads: 99 then" in said.getMessage()


def test_the_environment_is_restored_where_a_kill_has_kept_it_from_being_written(tmp_path):
    uiat.train(tiny.run(epochs=1, objective=Standard()), run_dir=tmp_path / "run")
    before = (tmp_path / "run" / "environment.json").read_bytes()
    (tmp_path / "run" / "environment.json").unlink()
    uiat.resume(tmp_path / "run")
    assert (tmp_path / "run" / "environment.json").read_bytes() == before


def test_a_run_that_starts_over_is_of_the_present_environment(tmp_path):
    folder = make_folder(tiny.run(), tmp_path / "run")
    write_recorded(folder / "environment.json", b'{"threads": 99}')
    assert restore_environment(folder, begins=False) == {"threads": 99}
    assert restore_environment(folder, begins=True)["threads"] == torch.get_num_threads()
