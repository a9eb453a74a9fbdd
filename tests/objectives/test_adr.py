"""ADR: the running average by its recursion, rectified labels by their formula, and the loss on them."""

import math

import pytest
import torch
import torch.nn.functional as F

from support.helpers import cnn, pgd
from support.objectives import assert_formula, double, state_of
from uiat import ADR

ATTACK = pgd(3, loss="kl")


def rectified(logits, y, tau, mix):
    """The label of each image by itself."""
    rows = []
    for z, k in zip(logits, y.tolist(), strict=True):
        q = (z / tau).softmax(0)
        fraction = min(1.0, max(0.0, mix - float(q.max() - q[k])))
        rows.append(fraction * q + (1 - fraction) * F.one_hot(torch.tensor(k), len(q)).double())
    return torch.stack(rows)


@pytest.mark.parametrize("epoch", [0, 3, 10])
def test_adr_by_formula(epoch):
    model, b = double()
    objective = ADR(attack=ATTACK, temperatures=(0.2, 0.05), interpolations=(0.3, 0.9), epochs=10)
    average = cnn(seed=4).double().eval()
    with torch.no_grad():  # a confident average, so that some of its predictions are cut off and some are not
        average.head.weight.mul_(3)
    state = state_of(objective, model=average)
    expected_weights = [
        0.995 * old.detach() + 0.005 * new.detach()
        for old, new in zip(average.parameters(), model.parameters(), strict=True)
    ]
    examples = objective.perturb(model, b, state, epoch=epoch)
    for found, expected in zip(state.average.network.parameters(), expected_weights, strict=True):
        torch.testing.assert_close(found, expected)
    share = (1 + math.cos(math.pi * epoch / 10)) / 2
    tau, mix = 0.05 + share * 0.15, 0.9 - share * 0.6
    t = rectified(state.average.network(b.x), b.y, tau, mix)
    torch.testing.assert_close(examples.target, t, rtol=1e-6, atol=1e-9)
    assert_formula(objective, model, examples, -(t * model(examples.x_adv).log_softmax(1)).sum(1))


def test_the_attack_raises_the_cross_entropy_against_the_rectified_label():
    model, b = double()
    objective = ADR(attack=ATTACK)
    state = state_of(objective, model=cnn(seed=4).double())
    torch.manual_seed(3)
    examples = objective.perturb(model, b, state, epoch=0)
    torch.manual_seed(3)
    x_t = ATTACK.draw_start(b.x)
    for _ in range(3):
        x_t = x_t.detach().requires_grad_()
        ce = -(examples.target * model(x_t).log_softmax(1)).sum()
        (gradient,) = torch.autograd.grad(ce, x_t)
        x_t = (x_t.detach() + 0.05 * gradient.sign()).clamp(b.x - 0.1, b.x + 0.1).clamp(0, 1)
    torch.testing.assert_close(examples.x_adv, x_t, rtol=0, atol=1e-9)


def test_a_label_without_any_mixing_is_finite():
    model, b = double()
    objective = ADR(attack=ATTACK, interpolations=(0.0, 0.0))
    examples = objective.perturb(model, b, state_of(objective, model=model), epoch=0)
    assert torch.equal(examples.target, F.one_hot(b.y, 4).double())
    assert (examples.x_adv - b.x).abs().max() > 0.09
    assert objective.loss(model, examples)["adv_ce"].isfinite().all()


def test_the_average_begins_at_the_model_and_counts_are_copied():
    model = cnn()
    objective = ADR(attack=pgd(loss="kl"))
    state = state_of(objective, model=model)
    b = double()[1]
    objective.perturb(model, type(b)(b.x.float(), b.y, b.index), state, epoch=0)
    for name, value in state.average.network.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])
    assert not any(p.requires_grad for p in state.parameters())
