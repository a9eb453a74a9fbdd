"""A sweep from Python: trained, evaluated, resumed, and written down."""

import json
import shutil
from dataclasses import replace

import pytest

import uiat
from support import tiny
from support.sweeps import SMALL
from uiat import UserError
from uiat.evaluation.record import write_record
from uiat.experiments import EvaluateOptions, evaluate, finish, sweep
from uiat.experiments.target import load_target
from uiat.runs.reader import EVALUATION_STATE_FILE

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def run_sweep(tmp_path):
    """Run a small sweep of digits into the folder `sweep`."""

    def run_sweep(**options):
        settings = SMALL | options.pop("settings", {})
        return sweep(options.pop("recipe", "digits-uiat"), settings=settings, folder=tmp_path / "sweep", **options)

    return run_sweep


def record(tmp_path):
    return json.loads((tmp_path / "sweep" / "sweep.json").read_text())["runs"]


def interrupt(*args, **options):
    raise KeyboardInterrupt


class Watch:
    """Keeps what a listener is told."""

    def __init__(self):
        self.count, self.statuses = 0, []

    def planned(self, runs):
        self.count = len(runs)

    def changed(self, run):
        if not run.note:
            self.statuses.append((run.run.seed, run.status))


def test_a_sweep_trains_evaluates_and_writes_down(run_sweep, tmp_path):
    watch = Watch()
    runs = run_sweep(settings={"objective.weight": [1, 2.5]}, seeds=[0, 1], listener=watch)
    rows = record(tmp_path)
    assert [(row["seed"], row["settings"]["objective.weight"], row["status"]) for row in rows] == [
        *((0, "1", "done"), (1, "1", "done"), (0, "2.5", "done"), (1, "2.5", "done"))
    ]
    for run, row in zip(runs, rows, strict=True):
        result = json.loads((tmp_path / "sweep" / row["folder"] / "evaluation.json").read_text())
        assert result["accuracy"] == row["accuracy"] == run.accuracy
        assert (set(row["accuracy"]), row["n"]) == ({"clean", "fgsm", "worst"}, 40)
        assert row["training_seconds"] == run.seconds > 0
    assert watch.count == 4
    assert watch.statuses[:4] == [(0, "training"), (0, "evaluating"), (0, "done"), (1, "training")]


def test_a_finished_sweep_does_nothing_and_a_larger_one_only_what_is_new(run_sweep, tmp_path, monkeypatch):
    (first,) = run_sweep()
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    with monkeypatch.context() as patch:
        for name in ("train", "resume", "evaluate"):
            patch.setattr(finish, name, None)  # whatever calls it fails
        assert [run.status for run in run_sweep()] == ["done"]
    assert [run.run.seed for run in run_sweep(seeds=[3, 0])] == [3, 0]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run_sweep(seeds=[0])
    assert [row["seed"] for row in record(tmp_path)] == [3, 0], "runs of earlier calls stay in the record"


def test_a_run_stopped_while_training_is_resumed_to_the_same_weights(run_sweep, tmp_path, monkeypatch):
    two = {"optimisation.epochs": 2}
    (run,) = run_sweep(settings=two)
    whole = shutil.move(run.folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(finish._Reporter, "epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(settings=two)
    assert record(tmp_path)[0]["status"] == "waiting"
    (run,) = run_sweep(settings=two)
    assert tiny.differences(run.folder, whole) == []


def test_a_run_stopped_before_its_settings_were_written_begins_anew(run_sweep):
    (run,) = run_sweep()
    shutil.rmtree(run.folder)
    run.folder.mkdir()
    (run.folder / ".config.yaml.1.partial").write_text("na")
    (run,) = run_sweep()
    assert run.status == "done"


def test_an_evaluation_that_was_stopped_is_resumed(run_sweep, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.extras, "run_extras", interrupt)  # the attacks are done, the result is not written
        with pytest.raises(KeyboardInterrupt):
            run_sweep()
    asked, real = [], evaluate.run
    monkeypatch.setattr(finish.evaluate, "run", lambda options, target: (asked.append(options), real(options, target)))
    (run,) = run_sweep()
    assert [options.resume for options in asked] == [True]
    assert (run.folder / "evaluation.json").is_file()
    assert not (run.folder / EVALUATION_STATE_FILE).exists()


def test_a_damaged_file_is_named_as_the_reason_of_a_failure(run_sweep):
    (run,) = run_sweep()
    for name, content in (("evaluation.json", "{"), ("metrics.jsonl", "{}\n")):
        whole = (run.folder / name).read_text()
        (run.folder / name).write_text(content)
        (failed,) = run_sweep()
        assert failed.status == "failed"
        assert f"{run.folder / name} is damaged" in failed.reason
        (run.folder / name).write_text(whole)
    assert run_sweep()[0].status == "done"


def test_other_attacks_are_evaluated_again(run_sweep):
    run_sweep()
    (run,) = run_sweep(settings={"evaluation.attacks": [["clean", "pgd-2"]]})
    assert set(run.accuracy) == {"clean", "pgd-2", "worst"}


def test_evaluations_by_hand_are_never_taken_for_the_result_of_a_run(run_sweep):
    """Of fewer images, other weights, other data or another seed, whenever they were made."""

    def by_hand(run, **options):
        options = EvaluateOptions(**({"run": run.folder, "attacks": "fgsm", "n": 40} | options))
        return evaluate.run(options, load_target(options))

    (run,) = run_sweep()
    for options in ({"n": 5}, {"n": 50}, {"which": "last"}, {"seed": 1}):
        by_hand(run, **options)
        assert finish.read_result(run) == run.result
        assert run_sweep()[0].result == run.result
    path = run.folder / "evaluation.json"
    write_record(path, {**run.result, "data": "other", "broken_by": [], "verdict": "of other data"})
    assert finish.read_result(run) == run.result


def test_a_whole_test_set_that_is_smaller_than_asked_for_is_a_result(run_sweep):
    (run,) = run_sweep()
    assert run.result["sample"]["of"] == 539
    few = replace(run.run, evaluation=replace(run.run.evaluation, n=600))
    asked = replace(run, run=few)
    assert finish.read_result(asked) is None  # 40 of 539
    whole = {**run.result, "sample": {"rule": "all", "of": 40}}
    write_record(run.folder / "evaluation.json", whole)
    assert finish.read_result(asked)["n"] == 40
    every = replace(run.run, evaluation=replace(run.run.evaluation, n=None))
    assert finish.read_result(replace(run, run=every))["sample"]["of"] == 40


def test_a_run_that_fails_does_not_stop_the_others(run_sweep, tmp_path, monkeypatch):
    real = finish.train

    def train(run, **options):
        if run.seed == 0:
            raise RuntimeError("no\nmemory")
        return real(run, **options)

    with monkeypatch.context() as patch:
        patch.setattr(finish, "train", train)
        runs = run_sweep(seeds=[0, 1])
    assert [(run.status, run.reason) for run in runs] == [("failed", "RuntimeError: no memory"), ("done", "")]
    assert [row["status"] for row in record(tmp_path)] == ["failed", "done"]
    assert record(tmp_path)[0]["reason"] == "RuntimeError: no memory"
    assert [run.status for run in run_sweep(seeds=[0, 1])] == ["done", "done"]


def test_rows_of_a_run_are_trained_alone_and_a_folder_of_another_run_fails_by_itself(tmp_path):
    base = uiat.override(tiny.run(epochs=1), [("seed", "0")])
    rows = {"base": [], "half the weight": [("objective.weight", "1.75")]}
    uiat.train(uiat.override(base, [("objective.weight", "2")]), run_dir=tmp_path / "half-the-weight-seed0")
    runs = sweep(base, rows=rows, folder=tmp_path, evaluated=False)
    assert [(run.row, run.status, run.result) for run in runs] == [
        ("base", "done", None),
        ("half the weight", "failed", None),
    ]
    assert "holds another run: objective.weight is 2.0 there and 1.75 here" in runs[1].reason
    assert not (tmp_path / "sweep.json").exists()


def test_what_cannot_be_meant_is_refused_before_anything_runs(run_sweep, tmp_path):
    with pytest.raises(UserError, match="did you mean 'digits-uiat'"):
        run_sweep(recipe="digits-uait")
    with pytest.raises(UserError, match=r"did you mean optimisation\.learning_rate=1"):
        run_sweep(settings={"lr": 1})
    assert not (tmp_path / "sweep").exists()
    (tmp_path / "sweep").write_text("in the way")
    with pytest.raises(UserError, match="cannot make the folder"):
        run_sweep()


def test_a_record_of_another_sweep_is_refused(run_sweep, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text('{"kind": "uiat.sweep", "recipe": "digits-iat", "runs": []}')
    with pytest.raises(UserError, match="is a sweep of digits-iat, not of digits-uiat: choose another folder"):
        run_sweep()
    (tmp_path / "sweep" / "sweep.json").write_text("[]")
    with pytest.raises(UserError, match="is damaged, or no record of a sweep"):
        run_sweep()
