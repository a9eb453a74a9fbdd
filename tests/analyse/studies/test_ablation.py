"""UIAT with one thing changed at a time, trained where it is missing."""

import pytest

import uiat
from support import tiny
from uiat.analyse.studies import ablation
from uiat.analyse.study import Context, StudyOptions, open_runs
from uiat.experiments import finish

TINY = (
    *(("model.width", "4"), ("data.subset", "96"), ("data.batch_size", "32"), ("optimisation.epochs", "2")),
    *(("objective.attack.steps", "1"), ("validation.steps", "1")),
)


def options_for(tmp_path, **more):
    options = {"n": 30, "attack": "pgd-2", "recipe": "digits-uiat", "seeds": (0, 1), "settings": TINY}
    return StudyOptions(**{**options, "train_dir": tmp_path / "runs", **more})


@pytest.fixture
def two_rows(monkeypatch):
    rows = {"uiat": [], "lambda 1": [("objective.weight", "1")]}
    monkeypatch.setattr(ablation, "changes", lambda run: rows)
    return rows


@pytest.mark.slow
def test_the_ablation_trains_what_is_missing_and_goes_on_with_what_was_stopped(tmp_path, two_rows, monkeypatch):
    half = uiat.override(uiat.recipes.get("digits-uiat"), TINY)
    where = tmp_path / "runs" / "uiat-seed0"
    with pytest.raises(tiny.Killed):
        uiat.train(half, run_dir=where, listener=tiny.Killer(at=4))
    context = Context([], options_for(tmp_path))
    data = ablation.measure(context)
    assert {name: row["seeds"] for name, row in data["rows"].items()} == {"uiat": [0, 1], "lambda 1": [0, 1]}
    assert all(len(tiny.metrics(path)) == 2 for path in (tmp_path / "runs").iterdir())
    assert (data["split"], data["base"], data["rows"]["uiat"]["n"]) == ("held-out", "uiat", 30)
    assert uiat.load_config((tmp_path / "runs/lambda-1-seed1/config.yaml").read_text()).objective.weight == 1.0

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(finish, "train", never)
    monkeypatch.setattr(finish, "resume", never)
    again = ablation.measure(Context([], options_for(tmp_path)))
    assert again == data
    # The same as comparing the folders by hand, where rows are named by what differs.
    given = ablation.measure(
        Context(open_runs(sorted((tmp_path / "runs").iterdir(), reverse=True)), StudyOptions(n=30, attack="pgd-2"))
    )
    assert {name: sorted(row["robust"]) for name, row in given["rows"].items()} == {
        "uiat": sorted(data["rows"]["uiat"]["robust"]),
        "objective.weight=1.0": sorted(data["rows"]["lambda 1"]["robust"]),
    }


def test_a_folder_of_another_run_is_refused_and_a_row_that_fails_stops_no_other(tmp_path, two_rows):
    other = uiat.override(uiat.recipes.get("digits-uiat"), [*TINY, ("objective.weight", "2")])
    uiat.train(other, run_dir=tmp_path / "runs" / "lambda-1-seed0")
    data = ablation.measure(Context([], options_for(tmp_path, seeds=(0,))))
    assert list(data["rows"]) == ["uiat"]
    assert "holds another run: objective.weight is 2.0 there and 1.0 here" in data["failed"]["lambda 1, seed 0"]
    assert "Failed: lambda 1, seed 0" in " ".join(ablation.sentences(data))


def test_what_an_ablation_says_is_no_more_than_its_images_allow():
    def row(*robust):
        return {"seeds": [0, 1], "n": 400, "clean": [0.9, 0.9], "robust": list(robust), "seconds": [1.0, 1.0]}

    rows = {"uiat": row(0.5, 0.5), "better": row(0.51, 0.51), "worse": row(0.3, 0.3)}
    said = " ".join(ablation.sentences({"base": "uiat", "rows": rows, "failed": {}}))
    assert "better +1.0 points; worse -20.0 points" in said
    assert "1 of 2 are further from it than the 95 % interval of the difference" in said


@pytest.mark.parametrize(("robust", "clear"), [(0.537, 0), (0.55, 1)])
def test_what_may_be_chance_is_the_same_in_words_and_in_the_figure(robust, clear):
    row = {"clean": [0.8], "seconds": [1.0], "seeds": [0], "n": 1000}
    rows = {"uiat": {"robust": [0.5], **row}, "lambda 1": {"robust": [robust], **row}}
    data = {"rows": rows, "base": "uiat", "failed": {}}
    assert f"{clear} of 1 are further from it" in " ".join(ablation.sentences(data))
    points = [line for line in ablation.draw(data).axes[0].lines if len(line.get_xdata()) == 1]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, not clear]
