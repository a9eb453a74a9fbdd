"""The contents of a run folder as the report takes them."""

import json
from pathlib import Path

import pytest
import torch

from support.run_folders import ACCURACY, write_run
from uiat import UserError
from uiat.runs.run_files import RunFiles, find_copies, find_runs, is_evaluation_alone, read_files
from uiat.system.tensor_files import write_tensors


def test_notes_say_what_is_missing(tmp_path):
    notes = read_files(write_run(tmp_path / "a", epochs=0)).notes
    assert any("not evaluated" in note for note in notes)


def test_a_run_without_its_settings_is_no_evaluation_alone(tmp_path):
    run = write_run(tmp_path / "a", accuracy=ACCURACY)
    (run / "config.yaml").unlink()
    assert not is_evaluation_alone(run)
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        read_files(run)


@pytest.mark.parametrize(
    ("z", "meta"),
    [
        (torch.full((10, 1, 8, 8), torch.nan), {"threat": "Linf:0.1"}),
        (torch.zeros(3), {"threat": "Linf:0.1"}),
        (torch.zeros(10, 1, 8, 8), {"threat": "Linf:1e999999999"}),
        (torch.zeros(10, 1, 8, 8), {"threat": None}),
        (torch.zeros(10, 1, 8, 8), {}),
    ],
)
def test_perturbations_that_cannot_be_are_refused(tmp_path, z, meta):
    run = write_run(tmp_path / "a")
    write_tensors(run / "inverse.safetensors", {"z": z}, meta)
    with pytest.raises(UserError, match=r"inverse\.safetensors is"):
        read_files(run)


@pytest.mark.parametrize(
    "changed", [{"processor": ["a"]}, {"device_names": None}, {"device_names": [[]]}, {"torch": {}}, {"cores": []}]
)
def test_an_environment_that_cannot_be_is_refused(tmp_path, changed):
    run = write_run(tmp_path / "a")
    path = run / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(UserError, match=r"environment\.json is damaged: what it says of"):
        read_files(run)


def test_a_copy_is_told_by_settings_seed_and_weights(tmp_path):
    weights = {"a": 1.0, "copy": 1.0, "other": 2.0, "seed1": 1.0}
    for name, value in weights.items():
        run = write_run(tmp_path / name, seed=int(name == "seed1"))
        write_tensors(run / "best.safetensors", {"w": torch.tensor(value)}, {})
    runs = [read_files(write_run(tmp_path / "bare")), *(read_files(tmp_path / name) for name in weights)]
    # The root of the data is a folder of each run's own, and makes no other method of it.
    assert find_copies(runs) == {tmp_path / "copy": tmp_path / "a"}


def test_copies_of_an_evaluation_alone_are_told_by_what_was_evaluated():
    made = [RunFiles(Path(name), {"seed": 0}, evaluation={"sums": {"weights": name[0]}}) for name in ("a", "a2", "b")]
    assert find_copies(made) == {Path("a2"): Path("a")}


def test_a_folder_that_may_not_be_entered_is_passed_over(tmp_path, monkeypatch, caplog):
    write_run(tmp_path / "a")
    write_run(tmp_path / "closed")
    real = Path.is_file

    def is_file(path):
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert find_runs(tmp_path) == [tmp_path / "a"]
    assert "closed is passed over: Permission denied" in caplog.text


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    def iterdir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(UserError, match=rf"cannot read {tmp_path}: Permission denied"):
        find_runs(tmp_path, alone=True)
