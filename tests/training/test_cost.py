"""`uiat cost`: every method makes the passes that its paper's arithmetic says, and no other."""

import pytest
import torch
from torch import nn

from uiat import Run, override, recipes
from uiat.cli import main
from uiat.training.cost import count_flops, estimate_cost
from uiat.training.pass_count import PassCount, count_passes, phases

THROUGH = [("objective.inverse_gradient", "true")]
SINGLE = [("objective.attack.steps", "1"), ("objective.attack.step_size", "0.2")]


def units(name: str, *settings: tuple[str, str]) -> list[float]:
    run = override(recipes.get(f"digits-{name}"), [*settings, ("model.width", "4"), ("data.batch_size", "16")])
    return [cost.passes.units for cost in estimate_cost(run, steps=1).costs]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("standard", [], [3]),
        ("pgd-at", [], [23]),
        ("pgd-at", SINGLE, [5]),
        ("free", [], [12]),
        ("trades", [], [27]),
        ("uiat", THROUGH, [28]),
        ("uiat", [], [25]),
        ("uiat", [*THROUGH, *SINGLE], [10]),
        ("uiat-one-off", THROUGH, [23, 28, 26]),
        ("uiat-one-off", [], [23, 25, 24]),
        ("uiat-one-off", SINGLE, [5, 7, 6]),
        ("iat", THROUGH, [46]),
    ],
)
def test_passes_of_a_step(name: str, settings: list[tuple[str, str]], expected: list[float]) -> None:
    assert units(name, *settings) == expected


def test_awp_costs_a_training_pass_from_its_epoch_on() -> None:
    run = override(
        recipes.get("digits-pgd-at"),
        [("optimisation.awp", "0.005"), ("optimisation.awp_from_epoch", "5"), ("model.width", "4")],
    )
    assert [(cost.epochs, cost.passes.units) for cost in estimate_cost(run, steps=1).costs] == [
        ((5, 0), 23),
        ((35, 5), 26),
    ]
    assert phases(Run()) == [(30, 0)]


def test_a_pass_without_a_gradient_and_through_features_is_seen() -> None:
    model, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), torch.rand(4, 1, 8, 8)
    with count_passes(model, x) as passes:
        with torch.no_grad():
            model(x)
        model[0](x).sum().backward()
    assert passes == PassCount(forward=8, input_backward=0, training_backward=4)


def test_arithmetic_of_a_convolution() -> None:
    assert count_flops(nn.Conv2d(3, 5, 3, padding=1), torch.rand(1, 3, 8, 8)) == 2 * 64 * 3 * 5 * 9


@pytest.mark.usefixtures("unchecked")
def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "digits-uiat-one-off", "model.width=4", "--steps", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "1-10" in shown
    assert "25 F" in shown
    assert "GFLOP/s" in shown
    heads = next(line for line in shown.splitlines() if "epochs" in line)
    assert heads.count("floor") == 2  # fp32 and bf16, whole words in 80 columns
    assert main(["cost"]) == 2
    assert main(["cost", "digits-uait"]) == 2
    assert "digits-uiat" in capsys.readouterr().err
