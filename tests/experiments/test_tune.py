"""A search: resumable, pruned by validation, and by held-out images alone."""

import json
import xml.etree.ElementTree as ET

import pytest

from support.sweeps import SMALL
from uiat import UserError, override, recipes
from uiat.experiments import tune as tuning
from uiat.experiments.tune import Trial, draw_pareto, tune

pytestmark = pytest.mark.usefixtures("unchecked")
RUN = override(recipes.get("digits-uiat"), list(SMALL.items()))
SPACE = ["objective.weight=0.5..8", "model.activation=relu,silu"]


@pytest.fixture
def trained(monkeypatch):
    """Instead of training, an accuracy that the settings decide; what was trained is listed."""
    pytest.importorskip("optuna")
    listed = []

    def finish(run, folder, *, listener):
        listed.append((folder.name, run.objective.weight))
        curve = [0.4, 0.5] if len(listed) < 5 else [0.3, 0.6]
        rows = [{"epoch": i, "clean": 0.9 - 0.05 * run.objective.weight, "robust": r} for i, r in enumerate(curve)]
        folder.mkdir()
        for i, row in enumerate(rows):
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            listener.epoch(rows[i])
        return _Result(rows)

    monkeypatch.setattr(tuning, "finish_training", finish)
    return listed


class _Result:
    def __init__(self, rows):
        self.history, self.best = rows, {"epoch": len(rows) - 1, "value": 0.0}


@pytest.mark.slow
def test_a_search_is_resumed_and_proposes_what_one_without_a_stop_would(trained, tmp_path):
    run = override(RUN, [("optimisation.epochs", "2")])
    whole = tune(run, trials=4, space=SPACE, folder=tmp_path / "whole")
    assert whole[0].settings["objective.weight"] == str(RUN.objective.weight)
    assert {trial.status for trial in whole} == {"done"}
    for trials in (2, 4, 4):
        parts = tune(run, trials=trials, space=SPACE, folder=tmp_path / "parts")
    assert [trial.settings for trial in parts] == [trial.settings for trial in whole]
    assert [name for name, _ in trained].count("trial-003") == 2
    record = json.loads((tmp_path / "parts" / "tune.json").read_text())
    assert [row["robust"] for row in record["trials"]] == [trial.robust for trial in parts]
    with pytest.raises(UserError, match="holds another search: space is"):
        tune(run, trials=4, space=SPACE[:1], folder=tmp_path / "parts")


def test_a_trial_that_falls_behind_is_stopped_and_one_that_was_killed_goes_on(trained, tmp_path, monkeypatch):
    run = override(RUN, [("optimisation.epochs", "2")])
    tune(run, trials=4, space=SPACE, folder=tmp_path)
    finish = tuning.finish_training

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "finish_training", stop)
    with pytest.raises(KeyboardInterrupt):
        tune(run, trials=5, space=SPACE, folder=tmp_path)
    monkeypatch.setattr(tuning, "finish_training", finish)
    found = tune(run, trials=5, space=SPACE, folder=tmp_path)
    assert trained[-1][0] == "trial-004"
    assert (found[4].status, found[4].curve, found[4].robust) == ("pruned", [0.3], None)
    assert [trial.best for trial in found].count(True) >= 1
    assert not found[4].best


@pytest.mark.parametrize("name", ["tune.json", "pareto.svg"])
def test_a_file_that_no_search_wrote_is_kept(trained, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"{name} is there without study.db: choose another folder"):
        tune(RUN, trials=1, space=SPACE, folder=tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_the_figure_is_a_picture_of_the_trials():
    pytest.importorskip("jinja2")
    trials = [Trial(0, {}, "done", 0.9, 0.5, best=True), Trial(1, {}, "done", 0.8, 0.4), Trial(2, {}, "pruned")]
    root = ET.fromstring(draw_pareto(trials))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["Pareto front, natural accuracy, % 90: 50.0 %", "trial-001, natural accuracy, % 80: 40.0 %"]


@pytest.mark.slow
def test_trials_are_real_runs_that_no_test_image_decides(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    real = tuning.finish_training
    seen = []
    monkeypatch.setattr(tuning, "finish_training", lambda run, *a, **o: (seen.append(run), real(run, *a, **o))[1])
    (trial,) = tune(RUN, trials=1, space=SPACE, folder=tmp_path)
    row = json.loads((tmp_path / "trial-000" / "metrics.jsonl").read_text())
    assert (trial.clean, trial.robust) == (row["clean"], row["robust"])
    assert not (tmp_path / "trial-000" / "evaluation.json").exists()
    assert len(seen) == 1
