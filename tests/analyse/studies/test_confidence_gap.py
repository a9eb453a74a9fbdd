"""Easy and hard images."""

import pytest
import torch

from support import helpers
from support.studies import known
from uiat.analyse.studies.confidence_gap import by_loss, measure, sentences


def test_the_halves_are_cut_by_loss():
    loss = torch.rand(101)
    halves = by_loss(loss)
    low, high = (halves[name][0] for name in ("low", "high"))
    assert loss[low].max() <= loss[high].min()
    assert sorted(torch.cat([low, high]).tolist()) == list(range(101))
    assert (len(low), len(high)) == (50, 51)
    assert halves["low"][1] == pytest.approx(loss[low].mean().item())


def test_the_gap_of_a_model_whose_distances_are_known():
    model, x, y = helpers.at_distances()
    data = measure(known({"line": model}, x, y, epsilons="-0.2,-0.1,0,0.1,0.2"))
    run = data["runs"]["line"]
    # The two furthest on the right side have the lowest loss.
    assert run["low"]["accuracy"] == [1.0, 1.0, 1.0, 1.0, 0.5]
    assert run["high"]["accuracy"] == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0, 0.0])
    clean = (model(x).argmax(1) == y).double().mean().item()
    assert (2 * run["low"]["accuracy"][2] + 3 * run["high"]["accuracy"][2]) / 5 == pytest.approx(clean)
    assert run["low"]["mean_loss"] < run["high"]["mean_loss"]


def test_without_the_images_as_they_are_and_inverse_attacks_nothing_is_said_of_them():
    run = {half: {"n": 5, "mean_loss": 1.0, "accuracy": [0.9, 0.5]} for half in ("low", "high")}
    threat = {"norm": "Linf", "epsilon": 8 / 255}
    (said,) = sentences({"strengths": [2 / 255, 8 / 255], "runs": {"a": run}, **threat})
    assert "90.0 % are right at 2/255" in said
    assert "as they are" not in said
    assert "inverse" not in said
