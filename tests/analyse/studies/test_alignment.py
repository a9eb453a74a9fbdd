"""The cosine of gradients nearby."""

import pytest
import torch

from support import helpers
from uiat import Linf
from uiat.analyse.studies.alignment import cosines, draw, sentences


def test_gradients_of_a_linear_model_agree_and_those_of_a_folded_one_do_not():
    model, x, y = helpers.at_distances()
    assert cosines(model, x, y, Linf(0.2), seed=0).tolist() == pytest.approx([1.0] * 5, abs=1e-5)

    grey = torch.full((20, 1, 8, 8), 0.501)
    cosine = cosines(helpers.Folded(), grey, torch.zeros(20, dtype=torch.int64), Linf(0.2), seed=0)
    assert cosine.mean().abs() < 0.1  # half of the pixels land on either side
    assert torch.equal(cosine, cosines(helpers.Folded(), grey, torch.zeros(20, dtype=torch.int64), Linf(0.2), seed=0))


def test_a_collapse_between_the_weights_that_were_kept_is_said_and_drawn():
    rows = [
        {"epoch": e, "weights": [w], "mean": m, "deviation": 0.1} for e, w, m in ((4, "best", 0.8), (10, "last", 0.7))
    ]
    recorded = [[1, 0.9], [4, 0.8], [6, 0.75], [7, 0.1], [10, 0.7]]
    run = {"n": 100, "weights": rows, "ended": 10}
    data = {"runs": {"a": run | {"recorded": recorded}, "b": run | {"recorded": []}}}
    said = " ".join(sentences(data))
    assert "between 0.900 (epoch 1) and 0.100 (epoch 7), with a fall from 0.750 to 0.100 from epoch 6 to 7" in said
    assert "Of b no other epoch is known" in said
    (axes,) = draw(data).axes
    drawn = [(list(line.get_xdata()), line.get_linestyle()) for line in axes.lines]
    assert [style != "None" for at, style in drawn if at == [1, 4, 6, 7, 10]] == [
        True
    ]  # a line, in its method's dashes
    assert drawn.count(([4, 10], "None")) == 2  # at their own epochs, and nothing claimed of those between
    data["runs"]["a"]["recorded"] = []
    (axes,) = draw(data).axes  # a row a run: at the same epochs they would hide each other
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axes.texts] == ["epoch 4", "epoch 10"] * 2
