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
    assert [(each.name, each.bytes) for each in report.kept] == [("z", 4 * 10 * 64)]
    assert report.seconds == pytest.approx(sum(e.epochs[0] * report.steps * e.seconds for e in report.costs))


def test_what_a_method_keeps_between_steps_is_counted_at_the_size_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """z by its grid and type, 100 classes of 3 x 16 x 16; its gradient's mean in float32; a row of p_bar an image."""
    monkeypatch.setattr(cost, "_measure_rates", lambda device: {"fp32": {"matrix": 1e9}})
    inverse = {"resolution": "1/2", "storage": "bfloat16", "gradient_momentum": "0.5", "warm_start": "nowhere"}
    settings = {f"objective.inverse.{name}": value for name, value in inverse.items()}
    settings |= {"model.width": "4", "data.batch_size": "2", "objective.momentum": "example", "data.name": "cifar100"}
    settings |= {"objective.attack.steps": "1", "data.subset": "9000", "objective.attack.start": "memory"}
    report = estimate_cost(override(recipes.get("digits-uiat"), settings.items()), steps=1)
    kept = {each.name: (each.shape, each.dtype, each.bytes) for each in report.kept}
    assert kept == {
        "z": ((100, 3, 16, 16), "bfloat16", 2 * 76_800),
        "g": ((100, 3, 16, 16), "float32", 4 * 76_800),
        "p_bar": ((9000, 100), "float32", 4 * 900_000),
        "visited": ((9000,), "bool", 9000),
        "attack_memory": ((9000, 3, 32, 32), "int8", 9000 * 3072),
    }
    assert report.universal_seconds is not None
    assert 0 < report.universal_seconds < report.costs[0].seconds
