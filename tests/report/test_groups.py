"""Runs that differ in nothing but the seed are one row, and rows are told apart by their labels."""

import shutil
from pathlib import Path

from support.run_folders import ACCURACY, groups_of, pages, write_run
from uiat.formatting import spread
from uiat.report.summary import find_warnings
from uiat.report.tables import make_table


def test_seeds_are_one_row_with_mean_and_deviation(runs):
    groups = groups_of(runs)
    assert [(group.label, group.seeds) for group in groups] == [("cifar10-resnet18-pgd-at", "0, 1"), ("uiat", "0")]
    assert spread(groups[0].values("autoattack"), scale=1, digits=2) == "48.00 ± 0.71"
    assert groups[0].training_seconds == [44.0, 44.0]


def test_runs_of_one_name_are_told_apart_by_what_differs(tmp_path):
    objectives = [{"name": "uiat", "weight": weight} for weight in (1, 2)]
    made = [write_run(tmp_path / str(i), name="uiat", objective=o) for i, o in enumerate(objectives)]
    assert [g.label for g in groups_of(made)] == ["uiat, weight=1", "uiat, weight=2"]


def test_runs_evaluated_differently_are_no_one_row(tmp_path):
    made = [write_run(tmp_path / str(n), seed=n, accuracy=ACCURACY, n=n) for n in (1000, 10_000)]
    groups = groups_of(made)
    assert len({group.label for group in groups}) == len(groups) == 2
    said = "different numbers of test images: 1000 (cifar10-resnet18-pgd-at (1000)); 10000 ("
    assert said in find_warnings(groups)[0]


def test_namesakes_are_labelled_by_what_is_unusual_about_them(tmp_path):
    changes = [{}, {"awp": 0.005}, {"average": "ema"}, {"awp": 0.005, "average": "ema", "epochs": 9, "clip": 1, "x": 2}]
    made = [
        write_run(tmp_path / str(i), name="uiat", optimisation={"awp": 0.0, "average": "none", "epochs": 4} | change)
        for i, change in enumerate(changes)
    ]
    labels = [group.label for group in groups_of(made)]
    assert labels[0] == "uiat, average=none, awp=0.0"
    assert labels[-1] == "uiat, average=ema, awp=0.005, epochs=9, clip=1, x=2"
    assert len(set(labels)) == 4


def test_a_method_that_nobody_has_entered_anywhere_keeps_its_whole_name(tmp_path):
    """The setting is cut from labels, and never the first word of a method."""
    names = {"digits-dual-head": {}, "digits-dual-head-wide": {"width": 2}, "digits-dual-tail": {"name": "dual-tail"}}
    made = [write_run(tmp_path / n, name=n, objective={"name": "dual-head", **more}) for n, more in names.items()]
    assert [group.label for group in groups_of(made)] == ["dual-head", "dual-head-wide", "dual-tail"]


def test_a_group_is_doubtful_as_soon_as_one_run_is(tmp_path):
    texts = ("nothing speaks against the number", "do not believe this number: gradients are zero")
    made = [write_run(tmp_path / str(i), seed=i, accuracy=ACCURACY, verdict=text) for i, text in enumerate(texts)]
    (group,) = groups_of(made)
    assert group.verdict == "doubtful"
    assert group.verdicts == [f"seed {i}: {text}" for i, text in enumerate(texts)]
    assert groups_of(made[:1])[0].verdict == "credible"


def test_seeds_attacked_differently_have_no_worst_case(tmp_path):
    made = [
        write_run(tmp_path / "0", seed=0, accuracy={"clean": 0.8, "pgd-20": 0.53, "autoattack": 0.48, "worst": 0.48}),
        write_run(tmp_path / "1", seed=1, accuracy={"clean": 0.8, "pgd-20": 0.53, "worst": 0.53}),
    ]
    (group,) = groups_of(made)
    assert (len(group.values("pgd-20")), group.values("worst")) == (2, [])
    assert find_warnings([group])[0].startswith("Seeds attacked by different attacks: ")
    assert "50.50" not in pages(made, tmp_path / "report.html")[1]  # the mean of the two


def test_self_checks_that_failed_have_checked_nothing(tmp_path):
    failed = "not checked: the self-checks ended with RuntimeError: out of memory"
    made = [write_run(tmp_path / "a", accuracy=ACCURACY, verdict=failed)]
    assert groups_of(made)[0].verdict == "not checked"


def test_a_copy_of_a_run_is_no_second_seed(evaluated_run, tmp_path, caplog):
    copy = Path(shutil.copytree(evaluated_run, tmp_path / "copy"))
    (group,) = groups_of([evaluated_run, copy])
    assert (group.seeds, len(group.values("worst"))) == (groups_of([evaluated_run])[0].seeds, 1)
    said = f"A copy is no further seed, and is left out: {copy} has the seed and the weights of {evaluated_run}."
    assert said in find_warnings([group])
    make_table([evaluated_run, copy], "csv")
    assert said in caplog.text
