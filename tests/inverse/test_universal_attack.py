"""Universal perturbations against closed forms, and what a fit may not depend on."""

import pytest
import torch
from torch import nn

from uiat import L1, L2, Linf, UserError
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, begin
from uiat.inverse import FitImages, UniversalAttack

THREATS = [Linf(0.1), L2(0.5), L1(2)]


class Planes(nn.Module):
    """A linear model of three classes; class k looks at its own third of the twelve pixels."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, 12))
        for k in range(3):
            self.w.data[k, 4 * k : 4 * k + 4] = torch.tensor([1.0, -2.0, 3.0, -4.0])

    def forward(self, x):
        return x.flatten(1) @ self.w.t()


def case(n=60):
    torch.manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(n, 1, 3, 4)
    return Planes(), FitImages(x, Planes()(x).argmax(1))


def fitted(**settings):
    model, images = case()
    return UniversalAttack(**settings).fit(model, images, num_classes=3).z


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.parametrize("per_class", [False, True])
def test_perturbations_lie_in_the_ball_and_raise_the_loss(threat, per_class):
    model, (x, y) = case()
    z = fitted(threat=threat, passes=4, per_class=per_class, targeted=True)
    assert z.shape == (2 if per_class else 3, 3 if per_class else 1, 1, 3, 4)
    assert (threat.length(z.flatten(0, 1)) <= float(threat.epsilon) * (1 + 1e-5)).all()
    away = fitted(threat=threat, passes=4, per_class=per_class)[0][y if per_class else 0 * y]
    before, after = (nn.functional.cross_entropy(model(images), y) for images in (x, x + away))
    assert after > before + 0.05


def test_towards_a_class_of_a_linear_model_it_is_the_sign_of_that_class():
    """On all images of other classes the gradient has the sign of w_t where t looks, and of -w elsewhere."""
    model, images = case()
    attack = UniversalAttack(threat=Linf(0.02), passes=20, targeted=True)
    z = attack.fit(model, images, num_classes=3).z[:, 0].flatten(1)
    order = model(images.x).sum(0).argsort(descending=True)
    for row, target in zip(z, order.tolist(), strict=True):
        sign = model.w.sum(0).sign() * torch.where(model.w[target] != 0, 1.0, -1.0)
        assert torch.allclose(row, 0.02 * sign, atol=0.004)


def test_one_a_class_lowers_its_own_class():
    model, _ = case()
    z = fitted(threat=Linf(0.02), passes=20, per_class=True)[0].flatten(1)
    for k in range(3):
        own = model.w[k] != 0
        assert torch.allclose(z[k, own], -0.02 * model.w[k, own].sign(), atol=0.004)


def test_a_fit_depends_on_the_seed_and_not_on_what_fits_into_memory():
    model, images = case(250)
    attack = UniversalAttack(threat=L2(0.3), passes=1)

    def halves(positions, work):
        for part in positions.split(7):
            work(part)
            yield len(part)

    one, parts, other = (
        attack.fit(model, images, num_classes=3, seed=seed, in_parts=how).z
        for seed, how in ((0, halves), (0, lambda left, work: [work(left)]), (1, halves))
    )
    assert torch.allclose(one, parts, atol=1e-6)
    assert not torch.allclose(one, other, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_image_is_broken_by_any_of_the_perturbations_and_never_leaves_the_ball():
    model, images = case()
    attack = UniversalAttack(threat=Linf(0.1), passes=5, targeted=True).fit(model, images, num_classes=3)
    x = torch.rand(40, 1, 3, 4)
    y = model(x).argmax(1)
    points = begin(attack, model, x, y, keys(0, torch.arange(40)))
    found = advance(attack, model, points, 0, attack.iterations)
    tried = torch.stack([model((x + z).clamp(0, 1)).argmax(1) != y for z in attack.z[:, 0]])
    assert found["broken"].equal(tried.any(0))
    assert tried.any(0).sum() > tried.sum(1).max()
    assert (found["x_adv"] - x).abs().max() <= 0.1 + 1e-6


def test_what_cannot_be_tried_is_refused():
    model, images = case()
    attack, y = UniversalAttack(threat=Linf(0.1)), images.y
    with pytest.raises(UserError, match="uap is fitted before it is tried, on images apart from those"):
        begin(attack, model, images.x, y, y)
    small = attack.fitted(torch.zeros(1, 1, 1, 2, 2))
    with pytest.raises(UserError, match=r"fitted to images \(1, 2, 2\), and these are \(1, 3, 4\)"):
        begin(small, model, images.x, y, y)
