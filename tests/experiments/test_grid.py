"""`uiat sweep`: the grid, runs that fail, stop, or are there already, and the record of them."""

import json
import shutil

import pytest

import uiat
from support import tiny
from uiat import recipes
from uiat.cli import main
from uiat.experiments import evaluate, grid, sweep
from uiat.experiments.grid import GridRun
from uiat.training import api

# A sweep of digits that takes a moment: 2 epochs of 96 images, a CNN of width 4, 40 images judged.
SMALL = {
    **{"optimisation.epochs": "1", "data.subset": "96", "model.width": "4", "validation.steps": "1"},
    **{"evaluation.n": "40", "evaluation.attacks": "[clean, fgsm]", "objective.attack.steps": "1"},
    "objective.attack.step_size": "0.2",
}


@pytest.fixture
def ask(tmp_path, capsys, unchecked, monkeypatch):
    """Run a small sweep in this process: (exit code, standard output, standard error)."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def ask(*words, small=SMALL, out=tmp_path / "sweep", recipe="digits-uiat"):
        fixed = [word for path, value in small.items() for word in ("--set", f"{path}={value}")]
        code = main(["sweep", recipe, *fixed, *words, "--out", str(out)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return ask


def record(tmp_path):
    return json.loads((tmp_path / "sweep" / "sweep.json").read_text())["runs"]


def folders(tmp_path):
    return sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())


def test_a_grid_is_every_combination_in_a_folder_of_its_own(tmp_path):
    axes = [("objective.weight", ["1", "2"]), ("objective.inverse.radius", ["8/255", "0.1"])]
    cells = grid.grid("digits-uiat", axes, [0, 1], tmp_path)
    assert len(cells) == len({cell.folder for cell in cells}) == 8
    assert [cell.name for cell in cells[:3]] == [
        "objective.weight=1 objective.inverse.radius=8/255 seed=0",
        "objective.weight=1 objective.inverse.radius=8/255 seed=1",
        "objective.weight=1 objective.inverse.radius=0.1 seed=0",
    ]
    assert cells[-1].run == uiat.override(
        recipes.get("digits-uiat"), [("objective.weight", "2"), ("objective.inverse.radius", "0.1"), ("seed", "1")]
    )
    assert all("/" not in cell.folder.name for cell in cells)


def test_values_that_look_alike_in_a_file_name_have_folders_of_their_own(tmp_path):
    cells = grid.grid("digits-uiat", [("data.root", ["a/b", "a-b"])], [0], tmp_path)
    assert len({cell.folder for cell in cells}) == 2
    long = grid.grid("digits-uiat", [("data.root", ["x" * 200, "x" * 201])], [0], tmp_path)
    assert len({cell.folder for cell in long}) == 2
    assert all(len(cell.folder.name) < 120 for cell in long)


def test_a_sweep_trains_judges_and_writes_down(ask, tmp_path):
    code, out, err = ask("--seeds", "0,1", "--set", "objective.weight=1,2")
    assert (code, err) == (0, "")
    assert "[1/4]" in out
    assert "mean and standard deviation over seeds" in out
    assert "uiat report" in out
    rows = record(tmp_path)
    assert [(row["seed"], row["settings"]["objective.weight"], row["status"]) for row in rows] == [
        (0, "1", "done"),
        (1, "1", "done"),
        (0, "2", "done"),
        (1, "2", "done"),
    ]
    for row in rows:
        result = json.loads((tmp_path / "sweep" / row["folder"] / "evaluation.json").read_text())
        assert result["accuracy"] == row["accuracy"]
        assert (set(row["accuracy"]), row["n"]) == ({"clean", "fgsm", "worst"}, 40)
        assert row["training_seconds"] > 0


def test_a_finished_sweep_does_nothing_and_a_larger_one_only_what_is_new(ask, tmp_path, monkeypatch):
    assert ask()[0] == 0
    before = {path: path.stat().st_mtime_ns for path in folders(tmp_path)[0].iterdir()}
    with monkeypatch.context() as patch:
        for name in ("prepared", "reopened", "judge"):
            patch.setattr(sweep, name, None)  # whatever calls it fails
        assert ask()[0] == 0
    assert ask("--seeds", "3,0")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row["seed"] for row in record(tmp_path)] == [3, 0]
    assert ask("--seeds", "0")[0] == 0
    assert [row["seed"] for row in record(tmp_path)] == [3, 0], "runs of earlier calls stay in the record"


def test_a_run_stopped_while_training_goes_on_to_the_same_weights(ask, tmp_path, monkeypatch):
    two = SMALL | {"optimisation.epochs": "2"}
    assert ask(small=two)[0] == 0
    whole = tmp_path / "whole"
    shutil.move(tmp_path / "sweep", whole)

    def stop(self, row):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweep._Listener, "epoch", stop)
        code, _, err = ask(small=two)
    assert code == 130
    assert "stopped with 0 of 1 runs done; the same command goes on" in err
    assert ask(small=two)[0] == 0
    (one,), (other,) = folders(tmp_path), [path for path in whole.iterdir() if path.is_dir()]
    assert tiny.differences(one, other) == []


def test_a_run_stopped_before_its_settings_were_written_begins_anew(ask, tmp_path):
    assert ask()[0] == 0
    (folder,) = folders(tmp_path)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".config.yaml.1.partial").write_text("na")
    assert ask()[0] == 0
    assert (folder / "evaluation.json").is_file()


def test_a_run_stopped_while_it_was_judged_is_judged(ask, tmp_path, monkeypatch):
    real = sweep.judge
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "judge", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        assert ask()[0] == 130
    (folder,) = folders(tmp_path)
    weights = (folder / "best.safetensors").stat().st_mtime_ns
    asked = []
    monkeypatch.setattr(sweep, "judge", lambda a, *rest: (asked.append(a.resume), real(a, *rest)))
    assert ask()[0] == 0
    assert asked == [False]  # nothing of the evaluation was kept
    assert (folder / "best.safetensors").stat().st_mtime_ns == weights


@pytest.mark.parametrize(("name", "content"), [("evaluation.json", "{"), ("metrics.jsonl", "{}\n")])
def test_a_damaged_file_is_named_as_the_reason_of_a_failure(ask, tmp_path, name, content):
    assert ask()[0] == 0
    (folder,) = folders(tmp_path)
    whole = (folder / name).read_text()
    (folder / name).write_text(content)
    code, out, _ = ask()
    assert code == 1
    assert f"{folder / name} is damaged" in out
    (folder / name).write_text(whole)
    assert ask()[0] == 0


def test_an_evaluation_that_was_stopped_goes_on(ask, tmp_path, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluate.further, "measured", stop)  # the attacks are done, the result is not written
        assert ask()[0] == 130
    (folder,) = folders(tmp_path)
    assert (folder / evaluate.STATE).is_file()
    assert ask()[0] == 0
    assert (folder / "evaluation.json").is_file()
    assert not (folder / evaluate.STATE).exists()


def test_other_attacks_are_judged_again(ask, tmp_path):
    assert ask()[0] == 0
    assert ask(small=SMALL | {"evaluation.attacks": "[clean, pgd-2]"})[0] == 0
    (folder,) = folders(tmp_path)[-1:]
    assert "pgd-2" in json.loads((folder / "evaluation.json").read_text())["accuracy"]


def test_a_run_that_fails_does_not_stop_the_others(ask, tmp_path, monkeypatch):
    real = api.start_run

    def prepared(run, **options):
        if run.seed == 0:
            raise RuntimeError("no\nmemory")
        return real(run, **options)

    monkeypatch.setattr(sweep, "prepared", prepared)
    code, out, _ = ask("--seeds", "0,1")
    assert code == 1
    assert "1 of 2 runs failed; the same command tries them again" in out
    assert "seed=0: RuntimeError: no memory" in out
    assert [row["status"] for row in record(tmp_path)] == ["failed", "done"]
    assert record(tmp_path)[0]["reason"] == "RuntimeError: no memory"
    monkeypatch.setattr(sweep, "prepared", real)
    assert ask("--seeds", "0,1")[0] == 0
    assert [row["status"] for row in record(tmp_path)] == ["done", "done"]


MISTAKES = {
    "recipe": ({"recipe": "digits-uait"}, [], "did you mean 'digits-uiat'"),
    "field": ({}, ["--set", "objective.gama=1"], "did you mean 'objective.gamma'"),
    "value": ({}, ["--set", "objective.weight=1,x"], "objective.weight should be"),
    "no value": ({}, ["--set", "objective.weight"], "--set takes FIELD=VALUE,VALUE"),
    "empty value": ({}, ["--set", "objective.weight=1,,2"], "--set takes FIELD=VALUE,VALUE"),
    "value twice": ({}, ["--set", "objective.weight=1,1"], "a value stands twice"),
    "field twice": ({}, ["--set", "objective.weight=1", "--set", "objective.weight=2"], "is set twice"),
    "seed field": ({}, ["--set", "seed=1,2"], "with --seeds"),
    "seeds": ({}, ["--seeds", "0,x"], "seeds are whole numbers"),
    "seed twice": ({}, ["--seeds", "0,0"], "a seed stands twice"),
    "negative": ({}, ["--seeds", "0,-1"], "seeds are whole numbers"),
}


@pytest.mark.parametrize(("options", "words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_what_cannot_be_meant_is_refused_before_anything_runs(ask, tmp_path, options, words, says):
    code, _, err = ask(*words, **options)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_another_run_is_refused(ask, tmp_path):
    assert ask()[0] == 0
    (folder,) = folders(tmp_path)
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("weight: 3.5", "weight: 2.5"))
    code, _, err = ask()
    assert code == 2
    assert "holds another run: objective.weight is 2.5 there and 3.5 here; give another --out" in err


def test_a_record_of_another_sweep_is_refused(ask, tmp_path):
    assert ask()[0] == 0
    assert "is a sweep of digits-uiat, not of digits-pgd-at" in ask(recipe="digits-pgd-at")[2]
    (tmp_path / "sweep" / "sweep.json").write_text("[]")
    assert "is damaged, or no record of a sweep" in ask()[2]


def test_what_the_board_shows(monkeypatch):
    cells = [GridRun({"objective.weight": w}, uiat.Run(), grid.Path(w)) for w in ("1", "2")]
    cells[0].status, cells[0].result = "done", {"accuracy": {"clean": 0.5, "worst": 0.25}}
    cells[1].status, cells[1].note = "training", "epoch 1/2, step 3/9"
    shown = sweep._table(cells)
    assert [str(column.header) for column in shown.columns] == [
        *("objective.weight", "seed", "clean", "worst", "training, s", "state")
    ]
    assert list(shown.columns[-1].cells) == ["done", "training, epoch 1/2, step 3/9"]
    assert list(shown.columns[3].cells) == ["25.00 %", "-"]
