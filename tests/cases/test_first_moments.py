"""A start that is killed at any of its first calls to the system: the same command begins anew, to the same weights."""

import os
import shutil
import signal

import jaxtyping
import pytest

from support import tiny
from support.forks import Moments, start, wait
from uiat.cli import main

FIELDS = ["data.subset=64", "model.width=4", "optimisation.epochs=1", "objective.attack.steps=1", "validation.steps=1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed; made in this process, so that the forked ones find all modules imported."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    before, jaxtyping.config.jaxtyping_disable = jaxtyping.config.jaxtyping_disable, True
    try:
        assert main(["train", "digits-uiat", *FIELDS, "--run-dir", str(folder)]) == 0
        assert main(["evaluate", str(folder), "--attacks", "clean", "--n", "9", "--out", str(folder.parent)]) == 0
    finally:
        jaxtyping.config.jaxtyping_disable = before
    return folder


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("moment", [1, 4, 8, 11])
def test_a_start_killed_in_its_first_moments_can_be_made_again(whole, tmp_path, moment, after):
    words = ["train", "digits-uiat", *FIELDS, "--run-dir", tmp_path / "run"]
    killed = start(words, tmp_path / "out", before=Moments(moment, after=after).watch)
    assert wait(killed) == -signal.SIGKILL
    left = (tmp_path / "run").exists()
    assert not left or {"config.yaml", "environment.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    again = ["train", "--resume", tmp_path / "run"] if left else words
    assert wait(start(again, tmp_path / "again")) == 0, (tmp_path / "again").read_text()
    assert tiny.differences(tmp_path / "run", whole) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize("moment", [2, 6, 9, 13, 40, 70])
def test_a_sweep_killed_in_its_first_moments_goes_on(whole, tmp_path, moment):
    words = [
        "sweep",
        "digits-uiat",
        *FIELDS,
        "evaluation.attacks=[fgsm]",
        "evaluation.n=20",
        "--out",
        tmp_path / "sweep",
    ]
    killed = start(words, tmp_path / "out", before=Moments(moment).watch)
    assert wait(killed) == -signal.SIGKILL
    assert wait(start(words, tmp_path / "again")) == 0, (tmp_path / "again").read_text()
    (run,) = (path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert tiny.differences(run, whole) == []
    assert [path.name for path in (tmp_path / "sweep").iterdir() if path.name.startswith(".")] == []
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "left", [[], [".config.yaml.12.partial"], [".config.yaml.12.partial", ".environment.json.12.partial"]]
)
def test_what_an_older_version_left_stops_no_sweep(whole, tmp_path, left):
    """`analyse ablation --train` failed for good on one such folder."""
    words = [
        "sweep",
        "digits-uiat",
        *FIELDS,
        "evaluation.attacks=[fgsm]",
        "evaluation.n=20",
        "--out",
        tmp_path / "sweep",
    ]
    assert wait(start(words, tmp_path / "first")) == 0
    (run,) = (path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    shutil.rmtree(run)
    run.mkdir()
    for name in left:
        (run / name).write_text("name: dig")
    assert wait(start(words, tmp_path / "out")) == 0, (tmp_path / "out").read_text()
    assert tiny.differences(run, whole) == []
    assert "config.yaml" in {path.name for path in run.iterdir()}


def test_a_run_without_its_environment_is_resumed_and_has_it_again(whole, tmp_path):
    """A kill of version 0.1 between its two files leaves config.yaml alone."""
    (tmp_path / "run").mkdir()
    shutil.copy(whole / "config.yaml", tmp_path / "run")
    (tmp_path / "run" / f".environment.json.{os.getpid()}.partial").write_text("{")
    assert wait(start(["train", "--resume", tmp_path / "run"], tmp_path / "out")) == 0, (tmp_path / "out").read_text()
    assert tiny.differences(tmp_path / "run", whole) == []
    names = {path.name for path in whole.iterdir()} - {"manifest.json"}  # which a folder of version 0.1 has not
    assert {path.name for path in (tmp_path / "run").iterdir()} - {"manifest.json"} == names
