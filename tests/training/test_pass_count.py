"""Every method makes the passes that its paper's arithmetic says, and no other."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from uiat import Run, models, override, recipes
from uiat.data import Batch
from uiat.training.pass_count import PassCount, cost_phases, count_flops, count_passes, step_passes

THROUGH = [("objective.inverse_gradient", "true")]
SINGLE = [("objective.attack.steps", "1"), ("objective.attack.step_size", "0.2")]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)


def count(model: nn.Module, name: str, *settings: tuple[str, str]) -> dict[tuple[int, int], float]:
    run = override(recipes.get(f"digits-{name}"), list(settings))
    batch = Batch(torch.rand(4, 1, 8, 8), torch.arange(4), torch.arange(4))
    return {phase: passes.units for phase, passes in step_passes(run, model, batch, num_classes=10).items()}


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
        # PGD-10 is 20 F, the natural prediction that an attack measures from 1, a training pass 3, a teacher's pass 1.
        ("uiat-paper", [], [20 + 1 + 2 + 3]),
        ("hat", [], [20 + 1 + 1 + 9]),
        ("score", [], [27]),
        ("dkl", [], [27]),
        ("lbgat", [], [20 + 1 + 3 + 3 + 1]),
        ("lbgat", [("objective.weight", "6")], [20 + 1 + 3 + 3 + 3]),
        ("fat", [], [23]),
        ("sat", [], [27]),
        ("mlcat", [], [23]),
        ("squeeze", [], [1 + 10 * (2 + 4) + 9]),
        ("dhat", [], [20 + 2 + 20 + 1 + 9]),
        ("ard", [], [20 + 1 + 3]),
        ("ard", [("objective.alpha", "0.5")], [20 + 1 + 6]),
        ("rslad", [], [20 + 1 + 6]),
        ("adr", [], [20 + 1 + 3]),
        ("gairat", [], [23]),
    ],
)
def test_passes_of_a_step(name: str, settings: list[tuple[str, str]], expected: list[float], model: nn.Module) -> None:
    assert list(count(model, name, *settings).values()) == expected


def test_a_generator_costs_its_own_operations(model: nn.Module) -> None:
    layers = 64 * 9 * (1 * 16 + 16 * 16 + 16 * 1) + 10 * 16  # multiplications of three convolutions and a product
    price = 2 * layers / count_flops(model, torch.rand(1, 1, 8, 8))
    (units,) = count(model, "uiat", ("objective.inverse.kind", "generator")).values()
    assert units == pytest.approx(25 + 3 * price)  # a forward pass of it, and a backward one to its weights
    assert price > 0.1


def test_awp_costs_a_training_pass_from_its_epoch_on(model: nn.Module) -> None:
    awp = [("optimisation.awp", "0.005"), ("optimisation.awp_from_epoch", "5")]
    assert count(model, "pgd-at", *awp) == {(5, 0): 23, (35, 5): 26}
    late = override(recipes.get("digits-uiat-one-off"), [awp[0], ("optimisation.awp_from_epoch", "20")])
    assert cost_phases(late) == [(10, 0), (1, 10), (9, 11), (20, 20)]
    never = override(recipes.get("digits-pgd-at"), [awp[0], ("optimisation.awp_from_epoch", "99")])
    assert cost_phases(never) == [(40, 0)]
    assert cost_phases(Run()) == [(30, 0)]
    warmed = Run(optimisation=replace(Run().optimisation, epochs=9, steps_warmup_epochs=4))
    assert cost_phases(warmed) == [(1, 0), (1, 1), (1, 2), (1, 3), (5, 4)]


def test_a_pass_without_a_gradient_and_through_features_is_seen() -> None:
    model, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), torch.rand(4, 1, 8, 8)
    with count_passes(model, x) as passes:
        with torch.no_grad():
            model(x)
        model[0](x).sum().backward()
    assert passes == PassCount(forward=8, input_backward=0, training_backward=4)
