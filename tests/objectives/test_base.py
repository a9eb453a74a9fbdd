"""What every objective does: `perturb` leaves the model alone, `loss` is pure, the state is buffers, passes are few."""

from dataclasses import replace

import pytest
import torch

from support.helpers import Failing, Passes, assert_untouched, batch, cnn, mlp, pgd, snapshot
from support.objectives import INSTANCE, OBJECTIVES, ONE_OFF, UNIVERSAL, state_of, uiat
from uiat import (
    ADR,
    ARD,
    DHAT,
    DKL,
    FAT,
    GAIRAT,
    HAT,
    MLCAT,
    PGDAT,
    RSLAD,
    UIAT,
    Examples,
    Mart,
    Objective,
    Score,
    SelfAdaptive,
    Squeeze,
    Standard,
    Trades,
    total,
)
from uiat.errors import UserError
from uiat.objectives import AnyObjective
from uiat.training.awp import adversarial_weights

# Those whose attack is all that `perturb` makes of the model: two passes here.
TWO_PASSES = ("standard", "pgd-at", "mart", "fat", "mlcat", "ard", "rslad", "gairat", "adr")
each = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


@each
def test_it_is_an_objective(objective):
    assert isinstance(objective, Objective)
    assert objective == replace(objective)
    assert isinstance(objective, AnyObjective)
    assert (objective.threat is None) == (objective == Standard())


@each
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_perturb_leaves_the_model_alone(objective, epoch):
    model = cnn()
    model.body.stage1.eval()
    model.head.bias.requires_grad_(False)
    before = snapshot(model)
    examples = objective.perturb(model, batch(), state_of(objective), epoch=epoch)
    assert_untouched(model, before)
    for value in vars(examples).values():
        assert not (isinstance(value, torch.Tensor) and value.requires_grad)


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in TWO_PASSES])
def test_perturb_leaves_the_model_alone_after_an_exception(name, at):
    """The first passes are the attack's, the third is the inverse adversary's (in TRADES the attack's too)."""
    model, objective = Failing(cnn(), at=at), OBJECTIVES[name]
    state, before = state_of(objective), snapshot(model)
    with pytest.raises(RuntimeError, match="boom"):
        objective.perturb(model, batch(), state, epoch=1)
    assert_untouched(model, before)


@each
def test_loss_is_pure(objective):
    """It neither attacks nor touches the state, and gives the same twice: this is what lets AWP fit every method."""
    model, state = cnn().eval(), state_of(objective).eval()
    examples = objective.perturb(model, batch(), state, epoch=1)
    before = {name: value.clone() for name, value in state.state_dict().items()}
    once, twice = objective.loss(model, examples), objective.loss(model, examples)
    assert once.keys() == twice.keys()
    for name in once:
        assert torch.equal(once[name], twice[name])
        assert once[name].shape == examples.y.shape
        assert once[name].dtype == (torch.bool if name == "correct" else torch.float32)
    assert all(torch.equal(value, before[name]) for name, value in state.state_dict().items())


@each
def test_state_survives_saving_and_loading(objective):
    model, teacher = cnn(), cnn(seed=7)
    state = state_of(objective, teacher=teacher)
    for epoch in range(2):
        objective.perturb(model, batch(), state, epoch=epoch)
    fresh = state_of(objective, model=cnn(seed=3), teacher=teacher)
    fresh.load_state_dict(state.state_dict())
    torch.manual_seed(3)
    expected = objective.perturb(model, batch(), state, epoch=2)
    torch.manual_seed(3)
    found = objective.perturb(model, batch(), fresh, epoch=2)
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if isinstance(value, torch.nn.Module):
            value, other = (next(iter(network.parameters())) for network in (value, other))
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_total_adds_terms_and_leaves_measurements_out():
    terms = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.5, 0.25]), "correct": torch.tensor([True, True])}
    assert total(terms).tolist() == [1.5, 2.25]


# --- cost, in forward and backward passes


@pytest.mark.parametrize(
    ("objective", "epoch", "crafting", "training"),
    [
        # (crafting forwards, crafting backwards), (training forwards, training backwards)
        pytest.param(Standard(), 0, (0, 0), (1, 1), id="standard"),
        pytest.param(PGDAT(attack=pgd(10)), 0, (10, 10), (1, 1), id="pgd-at"),
        pytest.param(
            Trades(attack=pgd(10, loss="kl", start="gaussian")), 0, (11, 10), (2, 2), id="trades: clean logits once"
        ),
        pytest.param(Mart(attack=pgd(10)), 0, (10, 10), (2, 2), id="mart"),
        pytest.param(uiat(attack=pgd(10)), 0, (11, 11), (2, 2), id="uiat"),
        pytest.param(uiat(attack=pgd(10), inverse_gradient=False), 0, (11, 11), (1, 1), id="uiat detached: shared"),
        pytest.param(uiat(attack=pgd(10), momentum="class"), 0, (11, 11), (2, 2), id="momentum: shared too"),
        pytest.param(uiat(attack=pgd(1)), 0, (2, 2), (2, 2), id="single-step uiat"),
        pytest.param(uiat(attack=pgd(10), inverse=replace(UNIVERSAL, steps=3)), 0, (13, 13), (2, 2), id="3 steps"),
        pytest.param(uiat(attack=pgd(10), inverse=replace(INSTANCE, steps=10)), 0, (20, 20), (2, 2), id="iat"),
        pytest.param(
            uiat(attack=pgd(10), inverse=replace(INSTANCE, steps=10), inverse_gradient=False),
            0,
            (21, 20),
            (1, 1),
            id="iat detached",
        ),
        pytest.param(uiat(attack=pgd(10), inverse=ONE_OFF), 0, (10, 10), (1, 1), id="before one-off: free"),
        pytest.param(uiat(attack=pgd(10), inverse=ONE_OFF), 1, (11, 11), (2, 2), id="one-off"),
        pytest.param(uiat(attack=pgd(10), inverse=ONE_OFF), 2, (10, 10), (2, 2), id="after one-off"),
        pytest.param(
            uiat(attack=pgd(10), inverse=ONE_OFF, inverse_gradient=False), 2, (11, 10), (1, 1), id="after, detached"
        ),
        pytest.param(
            uiat(attack=pgd(10), inverse=replace(UNIVERSAL, regulariser="logit")), 0, (13, 11), (2, 2), id="regularised"
        ),
    ],
)
def test_passes(objective, epoch, crafting, training):
    model, b = Passes(mlp()), batch()
    examples = objective.perturb(model, b, state_of(objective), epoch=epoch)
    assert (model.forwards["crafting"], model.backwards["crafting"]) == crafting
    assert (model.forwards["training"], model.backwards["training"]) == (0, 0)
    total(objective.loss(model, examples)).mean().backward()
    assert (model.forwards["training"], model.backwards["training"]) == training
    assert (model.forwards["crafting"], model.backwards["crafting"]) == crafting


def test_weight_perturbation_adds_one_training_pass():
    objective, model, b = uiat(attack=pgd(10)), Passes(mlp()), batch()
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    with adversarial_weights(model, lambda: total(objective.loss(model, examples)).mean(), gamma=0.01):
        total(objective.loss(model, examples)).mean().backward()
    assert (model.forwards["crafting"], model.forwards["training"], model.backwards["training"]) == (11, 4, 4)


# --- fields


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (Standard, {"label_smoothing": 1.0}, r"label_smoothing must be"),
        (PGDAT, {"label_smoothing": -0.1}, "label_smoothing"),
        (Trades, {"weight": -1.0}, "weight must be at least 0"),
        (Trades, {"weight": float("inf")}, "weight must be (at least 0|finite)"),
        (Mart, {"weight": float("nan")}, "weight must be (at least 0|finite)"),
        (UIAT, {"weight": -0.5}, "weight must be at least 0"),
        (UIAT, {"weight": float("nan")}, "weight must be (at least 0|finite)"),
        (UIAT, {"label_smoothing": 2.0}, "label_smoothing"),
        (UIAT, {"gamma": 1.0}, r"gamma must be"),
        (UIAT, {"gamma": -0.1}, "gamma"),
        (UIAT, {"ramp_epochs": -1}, "ramp_epochs must be at least 0"),
        (HAT, {"reach": -1.0}, "reach must be at least 0"),
        (HAT, {"helper_weight": float("nan")}, "helper_weight must be at least 0"),
        (Score, {"clip": 1.0}, r"clip must be below 1"),
        (DKL, {"temperature": 0.0}, "temperature must be above 0"),
        (DKL, {"squared_weight": float("inf")}, "squared_weight must be finite"),
        (FAT, {"tau": -1}, "tau must be at least 0"),
        (FAT, {"tau_epochs": (5, -1)}, "tau_epochs"),
        (FAT, {"form": "trades"}, 'the form "trades" needs an attack of loss "kl"'),
        (SelfAdaptive, {"momentum": 1.0}, r"momentum must be below 1"),
        (MLCAT, {"least_loss": -1.0}, "least_loss must be at least 0"),
        (Squeeze, {"attack": pgd(restarts=2)}, "searches once"),
        (DHAT, {"threshold": 1.0}, r"threshold must be below 1"),
        (DHAT, {"inverse": replace(INSTANCE, radius=4.0)}, "inverse.radius"),
        (ARD, {"alpha": 1.5}, r"alpha must be at most 1"),
        (ARD, {"temperature": 0.0}, "temperature must be above 0"),
        (RSLAD, {"adversarial": 1.5}, r"adversarial must be at most 1"),
        (ADR, {"attack": pgd()}, 'give it the loss "kl"'),
        (ADR, {"interpolations": (0.5, 1.5)}, "interpolations"),
        (ADR, {"temperatures": (0.0, 1.0)}, "temperatures"),
        (GAIRAT, {"attack": pgd(restarts=2)}, "restarts to 1"),
        (GAIRAT, {"shift": float("inf")}, "shift must be"),
    ],
)
def test_fields_out_of_range_are_refused(kind, fields, says):
    with pytest.raises(UserError, match=says):
        kind(**fields)


def test_examples_are_what_a_method_of_ones_own_needs():
    examples = Examples(batch().x, batch().y)
    assert (examples.x_adv, examples.x_inv, examples.target, examples.share, examples.weight) == (None,) * 4 + (0.0,)
