"""FAT: PGD that stops each image soon after it is misclassified, against a loop over single images."""

import pytest
import torch
import torch.nn.functional as F

from support.helpers import mlp, pgd
from support.objectives import KL_ATTACK, assert_formula, divergence, double, state_of
from uiat import FAT, PGD, UserError


def one_image(model, x, y, start, *, tau, steps, step_size, epsilon):
    """Algorithm 1 for one image, step by step."""
    x_t, left = start, tau
    for _ in range(steps):
        x_t = x_t.detach().requires_grad_()
        logits = model(x_t)
        if logits.argmax(1) != y:
            if left == 0:
                return x_t.detach()
            left -= 1
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), x_t)
        x_t = (x_t.detach() + step_size * gradient.sign()).clamp(x - epsilon, x + epsilon).clamp(0, 1)
    return x_t.detach()


@pytest.mark.parametrize("tau", [0, 1, 3])
def test_each_image_stops_as_in_algorithm_1(tau):
    torch.manual_seed(0)
    model, (_, b) = mlp().double().eval(), double()
    y = model(b.x).argmax(1)  # right at first, so that they fall at different steps
    y[:3] = (y[:3] + 1) % 4  # and some are wrong from the start
    b = type(b)(b.x, y, b.index)
    attack = pgd(8, step_size=0.02, start="none")
    objective = FAT(attack=attack, tau=tau, tau_epochs=())
    found = objective.perturb(model, b, state_of(objective), epoch=0).x_adv
    settings = {"tau": tau, "steps": 8, "step_size": 0.02, "epsilon": 0.1}
    expected = torch.cat([one_image(model, x[None], t[None], x[None], **settings) for x, t in zip(b.x, y, strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    full = attack(model, b.x, y)
    moved, whole = ((x - b.x).abs().amax((1, 2, 3)) for x in (found, full))
    assert (moved[:3] <= 0.02 * tau + 1e-9).all()
    assert (moved <= whole + 1e-9).all()
    assert (moved < whole - 1e-9).any()


def test_fat_by_formula():
    model, b = double()
    objective = FAT(attack=pgd(), label_smoothing=0.1)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    adv = model(examples.x_adv)
    assert_formula(objective, model, examples, F.cross_entropy(adv, b.y, label_smoothing=0.1, reduction="none"))


def test_fat_for_trades_by_formula():
    model, b = double()
    objective = FAT(attack=KL_ATTACK, form="trades", weight=3.0)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    natural, adv = model(b.x), model(examples.x_adv)
    kl = divergence(natural.softmax(1), adv.softmax(1))
    assert_formula(objective, model, examples, F.cross_entropy(natural, b.y, reduction="none") + 3.0 * kl)


def test_tau_grows_at_its_epochs():
    assert [FAT().tau_at(epoch) for epoch in (0, 49, 50, 89, 90, 119)] == [0, 0, 1, 1, 2, 2]
    assert FAT(tau=2, tau_epochs=()).tau_at(500) == 2


def test_restarts_are_refused():
    with pytest.raises(UserError, match="give it one restart"):
        FAT(attack=PGD(restarts=2))
