"""What a run is estimated to cost: its passes' operations, at the machine's rates, and the time of its steps."""

import pytest
import torch
from torch import nn

from uiat import override, recipes
from uiat.training import cost
from uiat.training.cost import count_flops, estimate_cost


def test_arithmetic_of_a_convolution() -> None:
    assert count_flops(nn.Conv2d(3, 5, 3, padding=1), torch.rand(1, 3, 8, 8)) == 2 * 64 * 3 * 5 * 9


def test_a_run_costs_what_its_phases_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_measure_rates", lambda device: {"fp32": {"matrix": 2e9, "convolution": 1e9}})
    settings = [("model.width", "4"), ("data.batch_size", "16")]
    report = estimate_cost(override(recipes.get("digits-uiat-one-off"), settings), steps=1)
    assert [each.epochs for each in report.costs] == [(10, 0), (1, 10), (29, 11)]
    assert [each.passes.units for each in report.costs] == [23, 25, 24]
    for each in report.costs:
        assert each.flops == each.passes.units * report.forward_flops * 16
        assert report.roofline_seconds(each) == each.flops / 2e9
    assert report.seconds == pytest.approx(sum(e.epochs[0] * report.steps * e.seconds for e in report.costs))
