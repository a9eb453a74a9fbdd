"""Trackers by name: each receives what is measured, and none can stop a run."""

import dataclasses
from importlib.util import find_spec

import pytest

import uiat
from uiat import Compute, UserError
from uiat.config.compute import TRACKER_NAMES
from uiat.system.distributed import Rank
from uiat.training.trackers import TRACKERS, Row, Tracking, require_trackers, track_evaluation, tracking

ROW = {"epoch": 0, "train_adv_ce": 1.5, "robust": 0.25, "seconds": 2.0, "alarms": []}
OK_RUN = uiat.Run(compute=Compute(trackers=("wandb",)))


class Kept:
    """A tracker that keeps what it gets, and fails from some call on."""

    def __init__(self, after=100):
        self.after, self.calls, self.closed = after, [], 0

    def log_numbers(self, values, step):
        self.calls.append((step, values))
        if len(self.calls) > self.after:
            raise OSError(28, "No space left on device")

    def log_picture(self, name, pixels, step):
        self.log_numbers({name: pixels.shape}, step)

    def close(self):
        self.closed += 1


@pytest.fixture
def kept(monkeypatch):
    tracker = Kept()
    monkeypatch.setitem(TRACKERS, "wandb", Row(lambda run: tracker, "torch"))
    return tracker


def test_the_names_that_settings_know_are_those_that_there_are():
    assert tuple(TRACKERS) == TRACKER_NAMES


def test_a_run_and_its_evaluation_go_to_the_trackers_that_it_names(kept, run, ask):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("trackers: []", "trackers: [wandb]"))
    (run / "evaluation.json").unlink(missing_ok=True)
    code, *_ = ask("evaluate", run, "--attacks", "fgsm", "--n", "20")
    assert code == 0
    (step, numbers), *pictures = kept.calls
    assert step == 1  # epoch, as many as the run has
    assert set(numbers) == {"evaluation/clean", "evaluation/fgsm", "evaluation/worst"}
    assert kept.closed == 1
    assert not pictures or [*pictures[0][1]] == ["evaluation/classes"]


def test_training_passes_on_each_epoch_and_the_perturbations(kept, tmp_path):
    run = uiat.override(
        uiat.recipes.get("digits-uiat"),
        [("optimisation.epochs", "1"), ("model.width", "4"), ("compute.trackers", "wandb"), ("data.subset", "96")],
    )
    uiat.train(run, run_dir=tmp_path / "run", progress=False)
    (step, numbers), (_, picture) = kept.calls
    assert step == 1
    assert {"train/adv_ce", "validation/robust", "run/learning_rate"} <= set(numbers)
    assert picture == {"inverse/perturbations": (66, 660, 3)}
    assert kept.closed == 1


def test_a_tracker_that_does_not_exist_or_is_not_installed_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"unknown tracker 'wanbd'; did you mean 'wandb'"):
        Compute(trackers=("wanbd",))
    monkeypatch.setitem(TRACKERS, "wandb", Row(Kept, "no_such_package"))
    with pytest.raises(UserError, match=r"wandb is not installed: pip install 'uiat\[wandb\]'"):
        uiat.train(OK_RUN, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="unknown tracker 'board'"):
        require_trackers(["board"])


def test_the_first_process_alone_tracks(tmp_path, monkeypatch, kept):
    monkeypatch.setattr("uiat.training.trackers.current_rank", lambda: Rank(rank=1, size=2))
    with tracking(OK_RUN, tmp_path) as opened:
        assert opened.trackers == {}


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(caplog, after):
    failing, other = Kept(after), Kept()
    opened = Tracking({"failing": failing, "other": other})
    for number in range(5):
        opened.epoch({**ROW, "epoch": number})
    assert (len(failing.calls), len(other.calls)) == (after + 1, 5)
    assert other.calls[0] == (1, {"train/adv_ce": 1.5, "validation/robust": 0.25, "run/seconds": 2.0})
    assert [record.getMessage() for record in caplog.records] == [
        "the run goes on without failing: OSError: [Errno 28] No space left on device"
    ]


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), RuntimeError("no server"), ImportError("x")])
def test_a_tracker_that_cannot_be_made_is_done_without(tmp_path, monkeypatch, caplog, error):
    def fail(run):
        raise error

    monkeypatch.setitem(TRACKERS, "wandb", Row(fail, "torch"))
    with tracking(OK_RUN, tmp_path) as opened:
        assert opened.trackers == {}
    assert f"the run goes on without wandb: {type(error).__name__}" in caplog.text


def test_an_evaluation_is_written_where_a_package_has_gone(run, monkeypatch, caplog):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("trackers: []", "trackers: [wandb]"))
    monkeypatch.setitem(TRACKERS, "wandb", dataclasses.replace(TRACKERS["wandb"], package="no_such_package"))
    track_evaluation(run, {"accuracy": {"clean": 0.5}})
    assert "the evaluation was not tracked: the tracker wandb is not installed" in caplog.text
    assert find_spec("no_such_package") is None
