"""DKL by its formula and by its theorem: taken apart, the KL has the gradients that it had whole. IKL's class means."""

import pytest
import torch
import torch.nn.functional as F

from support.helpers import gradients
from support.objectives import KL_ATTACK, assert_formula, divergence, double, probabilities, state_of
from uiat import DKL, Batch


def taken_apart(natural, adv, s):
    """sum_jk s_j s_k (d_jk - d'_jk)^2 / 4 with d_jk = z_j - z_k, as a double sum."""
    d, d_adv = (z[:, :, None] - z[:, None, :] for z in (natural, adv))
    return (s[:, :, None] * s[:, None, :] * (d - d_adv) ** 2).sum((1, 2)) / 4


@pytest.mark.parametrize("weights", ["class", "example"])
@pytest.mark.parametrize("both", [True, False])
def test_dkl_by_formula(weights, both):
    model, b = double()
    objective = DKL(attack=KL_ATTACK, weights=weights, both_gradients=both, squared_weight=5.0, weight=3.0)
    state = state_of(objective)
    state.means.copy_(torch.rand(4, 4).softmax(1))
    examples = objective.perturb(model, b, state, epoch=0)
    natural, adv = model(b.x), model(examples.x_adv)
    p = natural.softmax(1).detach()
    s = state.means[b.y].double() if weights == "class" else p
    expected = (
        F.cross_entropy(natural, b.y, reduction="none")
        + 5.0 * taken_apart(natural, adv if both else adv.detach(), s)
        - 3.0 * (p * adv.log_softmax(1)).sum(1)
    )
    assert_formula(objective, model, examples, expected)


def test_theorem_1_the_two_terms_have_the_gradients_of_the_kl():
    model, b = double()
    objective = DKL(attack=KL_ATTACK, weights="example", both_gradients=False, squared_weight=1.0, weight=1.0)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    terms = objective.loss(model, examples)
    kl = divergence(model(b.x).softmax(1), model(examples.x_adv).softmax(1))
    found = gradients((terms["squared"] + terms["adv_ce"]).mean(), model)
    for mine, expected in zip(found, gradients(kl.mean(), model), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-12)


def test_class_means_are_those_of_the_last_epoch():
    model, b = double()
    objective = DKL(attack=KL_ATTACK, temperature=4.0)
    state = state_of(objective)
    half = Batch(b.x[:6], b.y[:6] % 3, b.index[:6])  # class 3 is missing in the first epoch
    other = Batch(b.x[6:], b.y[6:] % 3, b.index[6:])
    logits = torch.log(probabilities(model, b.x)) / 4.0
    p = logits.softmax(1)
    for batch in (half, other):
        examples = objective.perturb(model, batch, state, epoch=0)
        assert torch.equal(examples.target, torch.full((6, 4), 0.25))  # uniform in the first epoch
    examples = objective.perturb(model, b, state, epoch=1)
    y = torch.cat([half.y, other.y])
    expected = torch.stack([p[y == k].mean(0) if k < 3 else torch.full((4,), 0.25).double() for k in range(4)])
    torch.testing.assert_close(state.means.double(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(examples.target, state.means[b.y])
    means = state.means.clone()
    objective.perturb(model, half, state, epoch=1)
    assert torch.equal(state.means, means)  # until the epoch ends
    objective.perturb(model, half, state, epoch=2)
    sums = torch.zeros(4, 4).double().index_add_(0, torch.cat([b.y, half.y]), torch.cat([p, p[:6]]))
    torch.testing.assert_close(state.means.double(), sums / sums.sum(1, keepdim=True), rtol=1e-5, atol=1e-7)
