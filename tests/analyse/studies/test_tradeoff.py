"""Clean against robust accuracy: the front, what chance allows to say of it, and averaged weights between its ends."""

import pytest

from support import tiny
from support.studies import write_history
from uiat import Model, Trades, UserError, analyse
from uiat.analyse.studies import tradeoff


def row(clean, robust, weight=None, seeds=(0, 1)):
    return {"seeds": list(seeds), "runs": ["a", "b"], "weight": weight, "n": 400, "clean": clean, "robust": robust}


ROWS = {
    "weight=1": row([0.90, 0.92], [0.40, 0.42], 1.0),
    "weight=3": row([0.85, 0.85], [0.50, 0.50], 3.0),
    "weight=6": row([0.80, 0.82], [0.48, 0.50], 6.0),
    "weight=9": row([0.70, 0.70], [0.55, 0.57], 9.0),
}


def between(*rows, seeds=(0, 1)):
    rows = [{"alpha": alpha, "clean": [c], "robust": [r]} for alpha, c, r in rows]
    return {"from": "weight=1", "to": "weight=9", "seeds": list(seeds), "batch_norm": 500, "rows": rows}


def study(*alphas):
    return {"rows": ROWS, "front": tradeoff.find_front(ROWS), "between": between(*alphas)}


def test_the_front_is_what_nothing_beats_in_both():
    assert tradeoff.find_front(ROWS) == ["weight=1", "weight=3", "weight=9"]
    same = {"a": row([0.9], [0.5]), "b": row([0.9], [0.5])}
    assert tradeoff.find_front(same) == ["a", "b"]
    said = " ".join(tradeoff.sentences(study()))
    assert "No other has more of both accuracies than weight=1 (91.0 % clean, 41.0 % robust), weight=3" in said
    assert "Beaten: weight=6 (81.0 % clean, 49.0 % robust)." in said
    # weight=6 robust: sqrt(0.49 * 0.51 / 400 + 0.01^2) = 2.69 points, the largest of all.
    assert "at most 2.7 points (of 400 held-out images and of seeds): differences below 7.5 points" in said
    assert "not averaged: no seed is in both" in said


def test_averages_are_held_against_the_line_between_both_ends():
    said = " ".join(tradeoff.sentences(study((0.5, 0.86, 0.50), (0.75, 0.74, 0.54))))
    assert "BatchNorm statistics measured anew on 500 natural training images" in said
    # The line is at 80.5 and 48.5 for alpha 0.5.
    assert "At alpha 0.5 that is +5.5 points clean and +1.5 points robust from the line between both." in said
    lost = " ".join(tradeoff.sentences(study((0.25, 0.60, 0.20), (0.5, 0.10, 0.05))))
    assert "At alpha 0.5 that is -70.5 points clean and -43.5 points robust from the line: the two lie in" in lost
    heading, *rows = tradeoff.table(study((0.5, 0.86, 0.50)))
    assert rows[1] == ["weight=3", "3", "2", "85.0 ± 0.0", "50.0 ± 0.0", "yes"]
    assert rows[-1][:5] == ["alpha 0.5", "-", "1", "86.0", "50.0"]
    assert all(len(each) == len(heading) for each in rows)
    (axes,) = tradeoff.draw(study((0.5, 0.86, 0.50))).axes
    drawn = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert list(drawn["front"]) == [0.91, 0.85, 0.70]
    assert list(drawn["averaged weights"]) == [0.91, 0.86, 0.70]


def test_runs_are_grouped_and_averaged_seed_by_seed(trained_runs):
    runs = [trained_runs / "uiat", trained_runs / "pgd-at"]
    data = analyse.run("tradeoff", runs, n=24, attack="pgd-2").data
    assert [each["seeds"] for each in data["rows"].values()] == [[1], [1]]
    assert {data["between"]["from"], data["between"]["to"]} == set(data["rows"])
    assert [each["alpha"] for each in data["between"]["rows"]] == [0.25, 0.5, 0.75]
    assert data["between"]["batch_norm"] == 24
    assert data["n"] == {"held-out": 24, "train": 24}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (None, r"two or more runs, such as those of a sweep over objective\.weight"),
        ({"seed": 2}, r"differ in more than the seed, such as in objective\.weight"),
        ({"model": Model(name="small-cnn", width=5)}, r"model\.width is 4 in one and 5 in other"),
        ({"data": {"validation": 70}}, r"data\.validation is \d+ in one and 70 in other"),
    ],
)
def test_runs_that_are_no_trade_off_are_refused(tmp_path, other, message):
    objective = Trades(attack=tiny.attack())
    runs = [write_history(tmp_path / "one", [], objective=objective, model=Model(name="small-cnn", width=4))]
    if other is not None:
        settings = {"objective": objective, "model": Model(name="small-cnn", width=4), **other}
        runs.append(write_history(tmp_path / "other", [], **settings))
    with pytest.raises(UserError, match=message) as caught:
        analyse.run("tradeoff", runs)
    assert "\n" not in str(caught.value)
