"""The one epoch in which z is refined."""

import pytest

import uiat
from uiat import UserError, analyse
from uiat.analyse.studies import one_off


def test_one_off_is_held_against_its_base_and_uiat():
    row = {"epochs": 10, "n": 400, "clean": 0.9, "seconds": 60.0}
    rows = [
        {"run": "base", "epoch": "never", "robust": 0.50, "passes": 20.0, **row},
        {"run": "a", "epoch": 1, "robust": 0.52, "passes": 22.0, **row},
        {"run": "b", "epoch": 1, "robust": 0.56, "passes": 22.0, **row},
        {"run": "c", "epoch": 5, "robust": 0.50, "passes": 21.0, **row},
        {"run": "full", "epoch": "every epoch", "robust": 0.55, "passes": 25.0, **row},
    ]
    said = " ".join(one_off.sentences({"rows": rows}))
    assert "Refined in epoch 1 alone (counted from 0), 54.0 % of 400 held-out images are robust." in said
    assert "epoch 5, is -4.0 points from it" in said
    assert "Against refining in every epoch (55.0 %), that is -1.0 points for -12.0 % of the passes" in said
    assert "Against PGD-AT (50.0 %), that is +4.0 points for +10.0 % of the passes" in said
    assert [row[0] for row in one_off.table({"rows": rows})[1:]] == ["never", "1", "5", "every epoch"]
    for shown in (rows, rows[:2]):
        for axes in one_off.draw({"rows": shown}).axes:
            assert all(tick == round(tick) for tick in axes.get_xticks())
            assert axes.get_xlim() == (-0.5, 9.5)
    assert one_off.table({"rows": rows})[2][:4] == ["1", "2", "90.0 ± 0.0", "54.0 ± 2.8"]


def test_one_off_has_rows_for_never_and_for_every_epoch(trained_runs):
    result = analyse.run(
        "one-off", [trained_runs / "uiat", trained_runs / "one-off", trained_runs / "pgd-at"], n=10, attack="pgd-2"
    )
    assert [row[0] for row in result.table[1:]] == ["never", "1", "every epoch"]
    assert "Against refining in every epoch" in result.paragraph
    assert "Against PGD-AT" in result.paragraph


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(trained_runs, tmp_path):
    run = uiat.load_config((trained_runs / "one-off" / "config.yaml").read_text())
    uiat.train(uiat.override(run, [("objective.weight", "1.25")]), run_dir=tmp_path / "other")
    with pytest.raises(UserError, match="one-off and other differ in more than the seed"):
        analyse.run("one-off", [trained_runs / "one-off", tmp_path / "other"], n=10, attack="pgd-2")
