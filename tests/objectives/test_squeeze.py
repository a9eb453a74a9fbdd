"""Squeeze training: the search against a slow reference, and the loss by its formula for each discrepancy."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from support.helpers import pgd
from support.objectives import KL_ATTACK, assert_formula, assert_statistics_of, divergence, double, state_of
from uiat import Squeeze


def apart(high, low, kind):
    p, q = high.softmax(-1), low.softmax(-1)
    if kind == "squared":
        return ((p - q) ** 2).sum(-1)
    if kind == "js":
        m = (p + q) / 2
        return (divergence(p, m) + divergence(q, m)) / 2
    return (divergence(q.detach(), p) + divergence(p.detach(), q)) / 2


@pytest.mark.parametrize("kind", ["symmetric-kl", "squared", "js"])
def test_squeeze_by_formula(kind):
    model, b = double()
    objective = Squeeze(attack=KL_ATTACK, weight=5.0, discrepancy=kind)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    logits = torch.stack([model(x) for x in (b.x, examples.x_adv, examples.x_inv)])
    own = logits.softmax(2)[:, torch.arange(12), b.y]
    rows = torch.arange(12)
    high, low = logits[own.argmin(0), rows], logits[own.argmax(0), rows]
    expected = F.cross_entropy(logits[0], b.y, reduction="none") + 5.0 * apart(high, low, kind)
    assert_formula(objective, model, examples, expected)


@pytest.mark.parametrize("kind", ["symmetric-kl", "squared", "js"])
def test_the_search_is_the_authors_loop(kind):
    model, b = double()
    objective = Squeeze(attack=pgd(4, step_size=0.03, loss="kl", start="gaussian"), discrepancy=kind)
    state = state_of(objective)
    torch.manual_seed(4)
    examples = objective.perturb(model, b, state, epoch=0)
    torch.manual_seed(4)
    starts = [objective.attack.draw_start(b.x) for _ in range(2)]  # each for the whole batch
    for i in range(12):
        x, y, (adv, col) = b.x[i : i + 1], b.y[i], (start[i : i + 1] for start in starts)
        for _ in range(4):
            points = [x, adv, col]
            own = torch.stack([model(point).softmax(1)[0, y] for point in points])
            up = points[int(own.argmin())].detach().clone().requires_grad_()
            down = points[int(own.argmax())].detach().clone().requires_grad_()
            gradients = torch.autograd.grad(apart(model(up), model(down), kind).sum(), (up, down))
            adv, col = (
                (p.detach() + 0.03 * g.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1)
                for p, g in zip((up, down), gradients, strict=True)
            )
        torch.testing.assert_close(examples.x_adv[i : i + 1], adv, rtol=0, atol=1e-9)
        torch.testing.assert_close(examples.x_inv[i : i + 1], col, rtol=0, atol=1e-9)


def test_neither_the_search_nor_the_collaborative_examples_move_the_statistics():
    model, b = double()
    objective = Squeeze(attack=replace(KL_ATTACK, batchnorm="train"))
    before = copy.deepcopy(model.state_dict())
    examples = objective.perturb(model.train(), b, state_of(objective), epoch=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert_statistics_of(objective, model, examples, b.x, examples.x_adv)
    assert Squeeze().attack.batchnorm == "train"


def test_the_examples_lie_in_the_ball_and_on_either_side_of_the_image():
    model, b = double()
    objective = Squeeze(attack=pgd(5, step_size=0.03, loss="kl", start="gaussian"))
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    ce = [F.cross_entropy(model(x), b.y, reduction="none") for x in (examples.x_inv, b.x, examples.x_adv)]
    assert ce[0].mean() < ce[1].mean() < ce[2].mean()
    for x in (examples.x_adv, examples.x_inv):
        assert (x - b.x).abs().max() <= 0.1 + 1e-6
        assert x.min() >= 0
        assert x.max() <= 1
