"""Several commands at once on the same run, evaluation, sweep or ablation: all end well, and nothing is done twice."""

import json
import os
import signal
import time

import pytest

from support.forks import start, wait
from support.sweeps import SMALL
from uiat.system.locks import locked

pytestmark = pytest.mark.usefixtures("unchecked")
FIELDS = [f"{name}={value}" for name, value in SMALL.items()]


def begin(tmp_path, *commands, **options):
    """Start commands at once: the numbers of their processes, and the files of their output."""
    outputs = [tmp_path / f"out-{number}" for number in range(len(commands))]
    return [start(words, out, **options) for words, out in zip(commands, outputs, strict=True)], outputs


def test_six_evaluations_of_one_run_with_other_seeds_all_end(run, tmp_path):
    words = ["evaluate", run, "--attacks", "pgd-2", "--n", 30, "--seed"]
    children, outputs = begin(tmp_path, *([*words, seed] for seed in range(6)))
    assert [wait(child) for child in children] == [0] * 6, [out.read_text() for out in outputs]
    results = [json.loads(path.read_text()) for path in run.glob("evaluation*.json")]
    assert sorted(result["seed"] for result in results) == list(range(6))
    assert {tuple(result["accuracy"]) for result in results} == {("clean", "pgd-2", "worst")}
    assert not [path.name for path in run.iterdir() if "state" in path.name or path.name.startswith(".")]


def test_the_same_evaluation_twice_is_said_by_the_second(run, tmp_path):
    words = ["evaluate", run, "--attacks", "pgd-20", "--n", 300]
    state = run / "evaluation-state.safetensors"
    (first,), outputs = begin(tmp_path, words)
    while not state.exists():
        time.sleep(0.01)
    second = start([*words, "--resume"], tmp_path / "second")
    assert (wait(second), wait(first)) == (2, 0), outputs[0].read_text()
    said = (tmp_path / "second").read_text().splitlines()[-1]
    assert said == (
        f"uiat: error: this evaluation is under way in another process, in {run}: wait for it to end, or stop it first"
    )
    assert not state.exists()


def test_the_same_sweep_twice_shares_the_work(tmp_path):
    folder = tmp_path / "sweep"
    words = ["sweep", "digits-uiat", *FIELDS, "--seeds", "0,1,2", "--out", folder]
    children, outputs = begin(tmp_path, words, words)
    assert [wait(child) for child in children] == [0, 0], [out.read_text() for out in outputs]
    said = "".join(out.read_text() for out in outputs)
    assert "failed" not in said
    assert [said.count(f"seed={seed}: training") for seed in range(3)] == [1, 1, 1]
    assert [said.count(f"seed={seed}: done") for seed in range(3)] == [2, 2, 2]
    assert "another process works on it; it is left to that one" in said
    assert [row["status"] for row in json.loads((folder / "sweep.json").read_text())["runs"]] == ["done"] * 3
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_a_sweep_that_is_killed_leaves_its_run_to_the_other_one(tmp_path):
    folder = tmp_path / "sweep"
    words = ["sweep", "digits-uiat", *FIELDS, "optimisation.epochs=20", "evaluation.attacks=[fgsm]", "--out", folder]
    words = [word for word in words if not str(word).startswith(("evaluation.attacks=[clean", "optimisation.epochs=1"))]
    (first,), _ = begin(tmp_path, words)
    while not list(folder.glob("*/checkpoint.safetensors")):
        time.sleep(0.01)
    second = start(words, tmp_path / "second")
    while not (tmp_path / "second").exists() or "elsewhere" not in (tmp_path / "second").read_text():
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    assert wait(first) == -signal.SIGKILL
    assert wait(second) == 0
    assert "seed=0: done" in (tmp_path / "second").read_text()


def test_a_run_that_is_trained_by_hand_is_waited_for(run, tmp_path):
    """Whoever trains a run of a sweep has its lock; the sweep does not call that a failure."""
    folder = tmp_path / "sweep"
    words = ["sweep", "digits-uiat", *FIELDS, "--out", folder]
    assert wait(start(words, tmp_path / "first")) == 0
    (cell,) = (path for path in folder.iterdir() if path.is_dir())
    (cell / "evaluation.json").unlink()
    with locked(cell / "checkpoint.safetensors", ""):
        second = start(words, tmp_path / "second")
        while not (tmp_path / "second").exists() or "elsewhere" not in (tmp_path / "second").read_text():
            time.sleep(0.01)
        assert not (cell / "evaluation.json").exists()
    assert wait(second) == 0
    assert (cell / "evaluation.json").exists()


@pytest.mark.slow
def test_the_same_ablation_twice_trains_each_row_once(tmp_path):
    fields = [word for word in FIELDS if not word.startswith(("objective", "evaluation"))]
    words = ["analyse", "ablation", "--train", "digits-uiat", *fields, "objective.attack.steps=1", "--seeds", "0"]
    words += ["--attack", "fgsm", "-n", "20", "--runs", tmp_path / "runs", "--out"]
    children, outputs = begin(tmp_path, [*words, tmp_path / "a"], [*words, tmp_path / "b"])
    assert [wait(child) for child in children] == [0, 0], [out.read_text() for out in outputs]
    said = [out.read_text().splitlines() for out in outputs]
    begun = [line for lines in said for line in lines if line.startswith("training ")]
    assert len(begun) == len(set(begun)) == len(list((tmp_path / "runs").iterdir())) > 5
    assert not any("failed" in line for lines in said for line in lines)
    one, two = (json.loads((tmp_path / name / "ablation.json").read_text())["rows"] for name in ("a", "b"))
    for row in one:
        assert one[row]["robust"] == two[row]["robust"]


@pytest.mark.parametrize("numbered", [False, True])
def test_runs_started_at_once_never_share_a_folder(tmp_path, monkeypatch, numbered):
    monkeypatch.chdir(tmp_path)
    words = ["train", "digits-standard", "data.subset=64", "model.width=4", "optimisation.epochs=1"]
    words += [] if numbered else ["--run-dir", "runs/one"]
    children, outputs = begin(tmp_path, words, words, words)
    codes = sorted(wait(child) for child in children)
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    if numbered:
        assert (codes, folders) == ([0, 0, 0], ["digits-standard", "digits-standard-2", "digits-standard-3"])
    else:
        assert (codes, folders) == ([0, 2, 2], ["one"])
        assert sum("runs/one exists and is never overwritten" in out.read_text() for out in outputs) == 2
