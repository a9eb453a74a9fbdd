"""The loss around images."""

import pytest
import torch
from torch import nn

from support import helpers
from support.studies import known
from uiat.analyse.studies.landscape import draw, measure


def test_the_loss_rises_along_the_adversarial_direction_more_than_along_a_random_one():
    model, x, y = helpers.at_distances()
    run = measure(known({"line": model}, x, y))["runs"]["line"]
    loss = nn.functional.cross_entropy(model(x), y).item()
    zero, one = 4, 8
    assert run["adversarial"][zero] == run["random"][zero] == pytest.approx(loss)
    assert run["adversarial"] == sorted(run["adversarial"])
    assert run["adversarial"][one] > run["random"][one]
    # A step of 0.1 against the border costs 0.1 * 64 of the difference of the logits.
    worst = nn.functional.cross_entropy(model(x) + torch.tensor([3.2, -3.2]), y).item()
    assert run["adversarial"][one] == pytest.approx(worst, rel=1e-4)
    assert run["surface"][5][5] == pytest.approx(loss, abs=1e-6)
    assert run["surface"][5][10] == pytest.approx(worst, rel=1e-4)


def test_one_model_does_not_flatten_the_others():
    """A standard model's loss is many times that of robust ones."""
    grid = [[float(i + j) for i in range(11)] for j in range(11)]
    runs = {
        name: {"adversarial": [top * (i + 1) for i in range(13)], "random": [1.0] * 13, "surface": grid}
        for name, top in (("robust", 0.2), ("standard", 20.0), ("other", 0.3))
    }
    data = {"steps": [i / 4 for i in range(-4, 9)], "grid": [i / 5 for i in range(-5, 6)], "runs": runs}
    first, second, third, none = draw(data).axes[:4]
    assert first.get_ylim()[1] < 3 < 200 < second.get_ylim()[1]
    assert third.get_title() == "other"
    assert not none.axison


def test_all_surfaces_have_one_scale_and_one_colour_bar():
    """The same loss has the same colour in each panel, also where one model's is many times that of the others."""
    grid = [[1.0 + i + j for j in range(11)] for i in range(11)]
    high = [[100 * value for value in row] for row in grid]
    line = {"adversarial": [1.0] * 13, "random": [1.0] * 13}
    runs = {"robust": line | {"surface": grid}, "standard": line | {"surface": high}}
    data = {"steps": [i / 4 for i in range(-4, 9)], "grid": [i / 5 for i in range(-5, 6)], "runs": runs}
    below = draw(data).subfigs[1]
    bars = [axes for axes in below.axes if axes.get_label() == "<colorbar>"]
    surfaces = [axes.collections[0] for axes in below.axes if axes not in bars]
    assert len(bars) == 1
    assert len(surfaces) == 2
    assert all(surface.get_clim() == pytest.approx((1.0, 2100.0)) for surface in surfaces)
    assert len({surface.cmap.name for surface in surfaces}) == 1
    colours = [surface.norm(21.0) for surface in surfaces]
    assert colours[0] == colours[1]
