"""L_inv: cross entropy and its regularisers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from support.helpers import Binary, batch, cnn
from uiat import L2, InstanceInverse, Linf, UniversalInverse
from uiat.errors import UserError
from uiat.inverse import InverseState, inverse_loss
from uiat.models.modes import frozen

RADIUS = 0.05
LINF, TWO = Linf(0.1), L2(0.5)
ABSENT, PRESENT = torch.tensor([1, 3]), torch.tensor([0, 2, 0, 2, 2, 0])


def universal(**fields: object) -> UniversalInverse:
    return UniversalInverse(**{"radius": RADIUS, "step_size": 0.02, **fields})  # type: ignore[arg-type]


def state_of(inverse: UniversalInverse, *, threat=LINF, classes: int = 4, momentum: bool = False) -> InverseState:
    z = inverse.initial(classes, (1, 8, 8), threat)
    return InverseState(z, gradient_momentum=momentum, rows=0, num_classes=classes)


def find(inverse, model, x, y, *, state=None, x_adv=None, threat=LINF, epoch=0):
    state = InverseState(None, gradient_momentum=False, rows=0, num_classes=4) if state is None else state
    with frozen(model):
        return inverse.find(model, x, x if x_adv is None else x_adv, y, state=state, threat=threat, epoch=epoch)


def regulariser_by_hand(model, x, x_adv, x_inv, kind):
    if kind == "none":
        return torch.zeros(len(x))
    if kind == "logit":
        p, p_adv, p_inv = (model(v).softmax(1) for v in (x, x_adv, x_inv))
        return (p * (p / p_inv).log()).sum(1) - (p_adv * (p_adv / p_inv).log()).sum(1)
    h, h_adv, h_inv = (model.features(v) for v in (x, x_adv, x_inv))
    near = ((h_inv - h) ** 2).sum(1)
    return near - ((h_inv - h_adv) ** 2).sum(1) if kind == "feature-repulsion" else near


@pytest.mark.parametrize("kind", ["none", "feature", "feature-repulsion", "logit"])
def test_the_inverse_loss_is_cross_entropy_and_its_regulariser(kind):
    model, b = cnn().double().eval(), batch()
    x = b.x.double()
    x_adv, x_inv = (x + 0.05 * torch.randn_like(x) for _ in range(2))
    values, logits = inverse_loss(model, x, x_adv, b.y, regulariser=kind, weight=0.7)(x_inv)
    assert torch.equal(logits, model(x_inv))
    expected = F.cross_entropy(logits, b.y, reduction="none") + 0.7 * regulariser_by_hand(model, x, x_adv, x_inv, kind)
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("kind", ["feature", "feature-repulsion", "logit"])
def test_a_regulariser_changes_the_inverse_adversary(kind):
    model, b = cnn(), batch()
    x_adv = (b.x + 0.1 * torch.randn_like(b.x)).clamp(0, 1)
    plain = InstanceInverse(radius=RADIUS, step_size=0.01, steps=5)
    with_it = replace(plain, regulariser=kind, regulariser_weight=20.0)
    assert not torch.equal(
        find(plain, model, b.x, b.y, x_adv=x_adv).x_inv, find(with_it, model, b.x, b.y, x_adv=x_adv).x_inv
    )


def test_the_feature_regulariser_keeps_features_near():
    model, b = cnn().eval(), batch()

    def distance(weight):
        inverse = InstanceInverse(
            radius=RADIUS, step_size=0.01, steps=10, regulariser="feature", regulariser_weight=weight
        )
        x_inv = find(inverse, model, b.x, b.y).x_inv
        return (model.features(x_inv) - model.features(b.x)).square().sum().item()

    assert distance(100.0) < 0.7 * distance(0.0)


def test_the_feature_regulariser_needs_features():
    with pytest.raises(UserError, match=r"needs a model with features\(x\) and head"):
        inverse_loss(Binary(torch.randn(64)), batch().x, batch().x, batch().y, regulariser="feature", weight=1.0)
