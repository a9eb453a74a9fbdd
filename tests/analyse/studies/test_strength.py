"""Accuracy against the radius of the attack, on models whose distances are known."""

import pytest
import torch
from torch import nn

from support import helpers
from support.studies import Always, known
from uiat.analyse.studies.strength import crossings, draw, measure, sentences
from uiat.intervals import wilson


def test_accuracy_falls_where_the_distances_say_and_strength_0_is_clean():
    model, x, y = helpers.at_distances()
    sure = Always([1.0, 0.0])  # wrong on all
    context = known({"line": model, "wrong": sure}, x, y, epsilons="0,0.1,0.2,0.3")
    data = measure(context)
    assert data["runs"]["line"]["accuracy"] == [0.6, 0.4, 0.2, 0.0]
    assert data["runs"]["line"]["accuracy"][0] == (model(x).argmax(1) == y).double().mean().item()
    assert data["runs"]["wrong"]["accuracy"] == [0.0] * 4
    assert data["pairs"] == [{"runs": ["line", "wrong"], "crossings": [], "ahead": [0, 0, 0, 0]}]
    assert "No two curves cross." in sentences(data)


def test_any_attack_of_an_evaluation_can_be_used_for_strength():
    model, x, y = helpers.at_distances()
    data = measure(known({"line": model}, x, y, epsilons="0,0.1,0.2", attack="apgd-ce"))
    assert data["runs"]["line"]["accuracy"] == [0.6, 0.4, 0.2]


def test_curves_that_cross_say_where_and_who_is_ahead_beyond_chance():
    x = torch.full((200, 1, 8, 8), 0.5)
    half = torch.cat([torch.ones(32), -torch.ones(32)])
    x[:160] += 0.03 * half.view(1, 1, 8, 8)  # 160 images stand up to 0.03; the rest never
    x[160:] -= 0.03 * half.view(1, 1, 8, 8)
    steady = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))  # half of the images right, whatever the attack
    with torch.no_grad():
        steady[1].weight.zero_()
        steady[1].bias.copy_(torch.tensor([0.0, 1.0]))
    y = torch.ones(200, dtype=torch.int64)
    y[100:160] = 0  # ... which the first model gets wrong, and the second too
    context = known({"line": helpers.Binary(half), "steady": steady}, x, y, epsilons="0,0.02,0.04,0.06")
    data = measure(context)
    assert data["runs"]["line"]["accuracy"] == [0.5, 0.5, 0.0, 0.0]
    assert data["runs"]["steady"]["accuracy"] == [0.7] * 4
    assert data["pairs"][0]["ahead"] == [-1] * 4


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        ([0.9, 0.5, 0.1], [0.8, 0.6, 0.3], [0.5]),
        ([0.9, 0.5, 0.1], [0.8, 0.4, 0.0], []),
        ([0.9, 0.5, 0.5, 0.1], [0.8, 0.5, 0.5, 0.3], [2.0]),  # level for a while
        ([0.9, 0.5, 0.9], [0.9, 0.5, 0.8], []),  # meets and never crosses
        ([0.9, 0.3, 0.9], [0.8, 0.4, 0.8], [0.5, 1.5]),
        ([0.5, 0.5], [0.5, 0.5], []),
    ],
)
def test_crossings(a, b, where):
    assert crossings(list(map(float, range(len(a)))), a, b) == pytest.approx(where)
    assert crossings(list(map(float, range(len(a)))), b, a) == pytest.approx(where)


def test_radii_are_written_as_people_write_them_and_the_axis_fits_the_curves():
    accuracy = {"a": [0.40, 0.30, 0.10], "b": [0.35, 0.32, 0.20]}
    runs = {name: {"n": 100, "accuracy": values} for name, values in accuracy.items()}
    strengths = [0.0, 8 / 255, 16 / 255]
    pairs = [{"runs": ["a", "b"], "crossings": crossings(strengths, *accuracy.values()), "ahead": [1, 0, -1]}]
    data = {"strengths": strengths, "norm": "Linf", "epsilon": 8 / 255, "runs": runs, "pairs": pairs}
    said = " ".join(sentences(data))
    assert "Accuracy at 8/255: b 32.0 %" in said
    assert "cross at 5.7/255: a is ahead beyond chance at 0; b is ahead beyond chance at 16/255" in said
    (axes,) = draw(data).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "4/255", "8/255", "12/255", "16/255"]
    assert wilson(40, 100)[1] < axes.get_ylim()[1] < 0.55
    bands = [path.get_extents() for band in axes.collections for path in band.get_paths()]
    assert [band.y1 for band in bands] == pytest.approx([wilson(40, 100)[1], wilson(35, 100)[1]])
    assert bands[0].y1 < axes.get_ylim()[1]
    (axes,) = draw(data | {"groups": {"both": ["a", "b"]}}).axes  # seeds of one method are one line in one band
    (line,) = [line for line in axes.lines if line.get_label() == "both (2 seeds)"]
    assert list(line.get_ydata()) == pytest.approx([0.375, 0.31, 0.15])
    assert len(axes.collections) == 1
    (axes,) = draw(data | {"norm": "L2"}).axes
    assert "cross at 0.022:" in " ".join(sentences(data | {"norm": "L2"}))
