"""The runs of a grid: their settings and their folders."""

import pytest

import uiat
from uiat import UserError, recipes
from uiat.config import yaml_io
from uiat.experiments import GridRun
from uiat.experiments.grid import check_same_run, make_grid, make_rows, mean_over_seeds, parse_axis, parse_seeds

DIGITS = recipes.get("digits-uiat")


def test_a_grid_is_every_combination_in_a_folder_of_its_own(tmp_path):
    axes = {"objective.weight": ["1", "2"], "objective.inverse.radius": ["8/255", "0.1"]}
    runs = make_grid(DIGITS, axes, [0, 1], tmp_path)
    assert len(runs) == len({run.folder for run in runs}) == 8
    assert [run.name for run in runs[:3]] == [
        "objective.weight=1 objective.inverse.radius=8/255 seed=0",
        "objective.weight=1 objective.inverse.radius=8/255 seed=1",
        "objective.weight=1 objective.inverse.radius=0.1 seed=0",
    ]
    last = [("objective.weight", "2"), ("objective.inverse.radius", "0.1"), ("seed", "1")]
    assert runs[-1].run == uiat.override(DIGITS, last)
    assert all("/" not in run.folder.name for run in runs)


def test_values_that_look_alike_in_a_file_name_have_folders_of_their_own(tmp_path):
    for values in (["a/b", "a-b"], ["x" * 200, "x" * 201]):
        runs = make_grid(DIGITS, {"data.root": values}, [0], tmp_path)
        assert len({run.folder for run in runs}) == 2
        assert all(len(run.folder.name) < 120 for run in runs)


def test_a_field_that_decides_no_weights_is_not_in_the_name_where_it_has_one_value(tmp_path):
    (run,) = make_grid(DIGITS, {"data.root": ["there"], "objective.weight": ["1"]}, [0], tmp_path)
    assert run.folder.name == "objective.weight=1,seed=0"
    assert run.run.data.root == "there"


def test_rows_have_names_and_come_seed_by_seed(tmp_path):
    rows = {"uiat": [], "KL(adv, inv) / x": [("objective.kl", "adversarial-inverse")]}
    runs = make_rows(DIGITS, rows, [3, 4], tmp_path)
    assert [(run.row, run.run.seed, run.folder.name) for run in runs[1:3]] == [
        ("KL(adv, inv) / x", 3, "KL(adv,-inv)-_-x-seed3"),
        ("uiat", 4, "uiat-seed4"),
    ]
    assert runs[1].run.objective.kl == "adversarial-inverse"


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"objective.gama": ["1"]}, r"did you mean 'objective\.gamma'"),
        ({"objective.weight": ["1", "x"]}, r"objective\.weight must be a number"),
        ({"objective.weight": ["1", "1"]}, "a value stands twice"),
        ({"seed": ["1", "2"]}, "are given with seeds"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, axes, says):
    with pytest.raises(UserError, match=says):
        make_grid(DIGITS, axes, [0], tmp_path)


@pytest.mark.parametrize("text", ["objective.weight", "=1", "objective.weight=1,,2", "objective.weight="])
def test_an_axis_is_a_field_with_values(text):
    with pytest.raises(UserError, match="a setting is FIELD=VALUE,VALUE"):
        parse_axis(text)


@pytest.mark.parametrize(
    ("text", "says"), [("0,x", "are whole numbers"), ("0,-1", "are whole numbers"), ("0,0", "a seed stands twice")]
)
def test_seeds_are_whole_numbers_each_once(text, says):
    with pytest.raises(UserError, match=says):
        parse_seeds(text)


def test_a_folder_of_another_run_is_refused_and_one_of_the_same_is_not(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml_io.dump(uiat.override(DIGITS, [("compute.precision", "bf16")])))
    free = [("data.root", "there"), ("evaluation.attacks", "fgsm"), ("compute.precision", "auto")]
    check_same_run(uiat.override(DIGITS, free), tmp_path)  # "auto" may have come to bf16
    for field, value, there in (("objective.weight", "2", "3.5"), ("seed", "1", "0"), ("evaluation.n", "5", "None")):
        with pytest.raises(UserError, match=f"holds another run: {field} is {there} there and"):
            check_same_run(uiat.override(DIGITS, [("compute.precision", "bf16"), (field, value)]), tmp_path)


def test_means_are_over_the_seeds_that_are_done(tmp_path):
    runs = make_grid(DIGITS, {"objective.weight": ["1", "2"]}, [0, 1, 2], tmp_path)
    for run, clean in zip(runs, (0.5, 0.7, None, 0.4, None, None), strict=True):
        run.result = None if clean is None else {"accuracy": {"clean": clean}}
    first, second = mean_over_seeds(runs)
    assert first == ({"objective.weight": "1"}, 2, {"clean": (pytest.approx(0.6), pytest.approx(0.02**0.5))})
    assert second == ({"objective.weight": "2"}, 1, {"clean": (0.4, None)})
    assert GridRun({}, DIGITS, tmp_path).accuracy == {}
