"""What is said of a folder as plain values; `tests/cli/test_show.py` has whole folders."""

import pytest

from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.experiments.overview import best_row, kind_of


def test_the_best_epoch_is_the_first_of_the_highest_and_the_last_without_validation():
    rows = [{"epoch": i, "clean": 0.9, "robust": robust} for i, robust in enumerate((0.2, 0.4, 0.4, 0.1))]
    assert best_row(rows, Run())["epoch"] == 1
    assert best_row([{"epoch": 0}, {"epoch": 1}], Run())["epoch"] == 1
    assert best_row([], Run()) is None


def test_runs_without_a_record_of_a_sweep_are_no_sweep(trained, tmp_path):
    (tmp_path / "a").symlink_to(trained)
    with pytest.raises(UserError, match=r"holds 1 runs and no sweep\.json: show one of them"):
        kind_of(tmp_path)
    assert kind_of(tmp_path / "a") == "run"
