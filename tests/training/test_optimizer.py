"""Optimisers and learning-rate schedules against the curves that their names promise."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn

from uiat import Optimisation
from uiat.errors import UserError
from uiat.training.optimizer import make_optimizer, make_scheduler

STEPS = 10  # a step count an epoch


def rates(config: Optimisation, *, done: int = 0, steps: int = STEPS) -> list[float]:
    """The rate of each step of the run."""
    optimizer = make_optimizer(nn.Linear(2, 2), config)
    scheduler = make_scheduler(optimizer, config, steps_per_epoch=steps, done=done)
    values = []
    for _ in range(config.epochs * steps - done):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


ALL = [
    Optimisation(epochs=4, schedule="constant", learning_rate=0.2),
    Optimisation(epochs=4, schedule="piecewise", milestones=(2, 3), learning_rate=0.2),
    Optimisation(epochs=4, schedule="cosine", learning_rate=0.2),
    Optimisation(epochs=4, schedule="onecycle", learning_rate=0.2),
    Optimisation(epochs=4, schedule="cyclic", learning_rate=0.2),
    Optimisation(epochs=4, schedule="constant", learning_rate=0.2, warmup_epochs=1),
    Optimisation(epochs=4, schedule="piecewise", milestones=(2, 3), learning_rate=0.2, warmup_epochs=1),
    Optimisation(epochs=4, schedule="cosine", learning_rate=0.2, warmup_epochs=0.5),
    Optimisation(epochs=1, schedule="cosine", learning_rate=0.2, warmup_epochs=0.1),
    Optimisation(epochs=1, schedule="onecycle", learning_rate=0.2),
    Optimisation(epochs=1, schedule="cyclic", learning_rate=0.2),
]
every = pytest.mark.parametrize("config", ALL, ids=lambda c: f"{c.schedule}-{c.epochs}-{c.warmup_epochs:g}")


@every
def test_the_peak_is_the_learning_rate_and_no_rate_is_negative(config):
    curve = rates(config)
    assert max(curve) == pytest.approx(0.2, rel=0.01)
    assert min(curve) >= 0


@every
def test_a_schedule_resumes_where_it_stopped(config):
    whole = rates(config)
    for fraction in (0.1, 0.5, 1.0):
        done = round(fraction * config.epochs * STEPS)
        assert rates(config, done=done) == whole[done:]


@pytest.mark.parametrize("schedule", ["constant", "piecewise", "cosine", "onecycle", "cyclic"])
def test_a_run_of_a_few_steps_has_a_schedule_too(schedule):
    for steps, peak_at in itertools.product([1, 2, 3, 5], [0.01, 0.25, 0.99]):
        curve = rates(Optimisation(epochs=1, schedule=schedule, learning_rate=0.2, peak_at=peak_at), steps=steps)
        assert all(0 <= rate <= 0.2 + 1e-9 for rate in curve), (steps, peak_at)


def test_constant():
    assert rates(ALL[0]) == [0.2] * 40


def test_piecewise_falls_at_its_milestones():
    expected = [0.2] * 20 + [0.02] * 10 + [0.002] * 10
    assert rates(ALL[1]) == pytest.approx(expected)


def test_a_warm_up_is_linear_and_does_not_move_the_milestones():
    expected = [0.02 * (i + 1) for i in range(10)] + [0.2] * 10 + [0.02] * 10 + [0.002] * 10
    assert rates(ALL[6]) == pytest.approx(expected)


def test_cosine_is_half_a_wave():
    assert rates(ALL[2]) == pytest.approx([0.1 * (1 + math.cos(math.pi * i / 40)) for i in range(40)])


@pytest.mark.parametrize("schedule", ["onecycle", "cyclic"])
@pytest.mark.parametrize("peak_at", [0.25, 0.5])
def test_one_peak_where_it_was_asked_for(schedule, peak_at):
    curve = rates(Optimisation(epochs=10, schedule=schedule, learning_rate=0.2, peak_at=peak_at))
    top = curve.index(max(curve))
    assert top == pytest.approx(peak_at * 100, abs=1)
    assert curve[: top + 1] == sorted(curve[: top + 1])
    assert curve[top:] == sorted(curve[top:], reverse=True)
    assert curve[-1] < 0.005


def test_cyclic_is_straight():
    curve = rates(Optimisation(epochs=10, schedule="cyclic", learning_rate=0.2, peak_at=0.2))
    assert curve == pytest.approx([0.01 * i for i in range(20)] + [0.2 * (100 - i) / 80 for i in range(20, 100)])


def test_no_schedule_warns_and_the_filter_does_not_leak():
    filters = list(warnings.filters)
    for config in ALL:
        rates(config, done=3)
    assert warnings.filters == filters


def test_onecycle_does_not_touch_the_momentum():
    optimizer = make_optimizer(nn.Linear(2, 2), ALL[3])
    scheduler = make_scheduler(optimizer, ALL[3], steps_per_epoch=STEPS)
    for _ in range(15):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schedule": "onecycle", "warmup_epochs": 1}, "warms up by itself"),
        ({"schedule": "cyclic", "warmup_epochs": 1}, "warms up by itself"),
        ({"schedule": "cosine", "warmup_epochs": 4}, "at least one step"),
    ],
)
def test_schedules_that_cannot_be_are_refused(fields, says):
    with pytest.raises(UserError, match=says):
        rates(Optimisation(epochs=4, **fields))


# --- optimisers


def test_sgd_by_hand():
    """Nesterov: v <- m v + g; w <- w - rate (g + m v), with g + weight decay times w as the gradient."""
    model = nn.Linear(1, 1, bias=False)
    config = Optimisation(learning_rate=0.1, momentum=0.9, weight_decay=0.01, schedule="constant")
    optimizer = make_optimizer(model, config)
    w = v = 0.0
    with torch.no_grad():
        model.weight.fill_(1.0)
    w = 1.0
    for gradient in (0.5, -0.2, 0.3):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        g = gradient + 0.01 * w
        v = 0.9 * v + g
        w -= 0.1 * (g + 0.9 * v)
        assert model.weight.item() == pytest.approx(w, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_each_optimiser_steps_in_each_dtype(optimizer, dtype):
    model = nn.Linear(4, 2).to(dtype)
    before = model.weight.detach().clone()
    made = make_optimizer(model, Optimisation(optimizer=optimizer, learning_rate=0.1, weight_decay=0.1))
    model(torch.ones(1, 4, dtype=dtype)).sum().backward()
    made.step()
    assert (model.weight < before).all()
    assert made.param_groups[0]["weight_decay"] == 0.1


def test_without_momentum_there_is_no_nesterov():
    assert make_optimizer(nn.Linear(1, 1), Optimisation(momentum=0.0)).param_groups[0]["nesterov"] is False


def test_frozen_parameters_are_not_given_to_it():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert make_optimizer(model, Optimisation()).param_groups[0]["params"] == [model.bias]
    model.bias.requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        make_optimizer(model, Optimisation())


def blocks():
    """A stem, two blocks, a layer between them that belongs to the first, a norm and a last layer."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.norm(self.linear(x))

    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(Block(), Block()), nn.LayerNorm(2), nn.Linear(2, 2))


def by_name(model, config):
    """Each parameter's (rate over the whole one, weight decay)."""
    optimizer = make_optimizer(model, config)
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (round(group["lr"] / config.learning_rate, 6), group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_norms_and_biases_may_be_left_undecayed(optimizer):
    found = by_name(blocks(), Optimisation(optimizer=optimizer, weight_decay=0.1, decay_norms=False))
    decayed = {name for name, (_, decay) in found.items() if decay == 0.1}
    assert decayed == {"0.weight", "1.0.linear.weight", "1.1.linear.weight", "3.weight"}
    assert {decay for name, (_, decay) in found.items() if name not in decayed} == {0.0}


def test_rates_fall_from_the_last_layer_to_the_first():
    found = by_name(blocks(), Optimisation(layer_decay=0.5))
    at = {"0": 0.125, "1.0": 0.25, "1.1": 0.5, "2": 1.0, "3": 1.0}
    assert {name: rate for name, (rate, _) in found.items()} == {
        name: next(rate for start, rate in at.items() if name.startswith(f"{start}.")) for name in found
    }
    with pytest.raises(UserError, match=r"optimisation\.layer_decay needs a model of blocks"):
        make_optimizer(nn.Linear(2, 2), Optimisation(layer_decay=0.5))


@pytest.mark.parametrize("schedule", ["constant", "piecewise", "cosine", "onecycle", "cyclic"])
def test_every_schedule_keeps_the_ratio_of_the_groups(schedule):
    config = Optimisation(epochs=2, schedule=schedule, milestones=(1,), layer_decay=0.5, learning_rate=0.2)
    optimizer = make_optimizer(blocks(), config)
    scheduler = make_scheduler(optimizer, config, steps_per_epoch=STEPS)
    whole = rates(Optimisation(epochs=2, schedule=schedule, milestones=(1,), learning_rate=0.2))
    for rate in whole:
        now = [group["lr"] for group in optimizer.param_groups]
        assert now[0] == pytest.approx(rate)
        assert now == pytest.approx([rate * ratio for ratio in (1, 0.5, 0.25, 0.125)])
        optimizer.step()
        scheduler.step()


def test_one_group_is_what_it_was_without_these_settings():
    model = blocks()
    groups = make_optimizer(model, Optimisation()).param_groups
    assert [[id(p) for p in group["params"]] for group in groups] == [[id(p) for p in model.parameters()]]
