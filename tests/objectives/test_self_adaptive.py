"""Self-adaptive training: soft labels by their recursion, and the loss by its formula."""

import pytest
import torch
import torch.nn.functional as F

from support.objectives import KL_ATTACK, assert_formula, divergence, double, probabilities, state_of
from uiat import Batch, SelfAdaptive, UserError


def test_it_is_trades_before_its_epoch_and_touches_no_label():
    model, b = double()
    objective = SelfAdaptive(attack=KL_ATTACK, weight=2.0, from_epoch=3)
    state = state_of(objective)
    examples = objective.perturb(model, b, state, epoch=2)
    natural, adv = model(b.x), model(examples.x_adv)
    kl = divergence(natural.softmax(1), adv.softmax(1))
    assert_formula(objective, model, examples, F.cross_entropy(natural, b.y, reduction="none") + 2.0 * kl)
    assert not state.visited.any()


def test_soft_labels_and_weights_by_formula():
    model, b = double()
    objective = SelfAdaptive(attack=KL_ATTACK, weight=2.0, momentum=0.8, from_epoch=1)
    state = state_of(objective)
    t = F.one_hot(b.y, 4).double()
    for epoch in (1, 2, 3):
        p = probabilities(model, b.x)
        t = 0.8 * t + 0.2 * p
        examples = objective.perturb(model, b, state, epoch=epoch)
        torch.testing.assert_close(state.table[b.index].double(), t, rtol=1e-5, atol=1e-6)
        w = t.amax(1) * len(t) / t.amax(1).sum()
        natural, adv = model(b.x), model(examples.x_adv)
        ce = -(state.table[b.index].double() * natural.log_softmax(1)).sum(1)
        torch.testing.assert_close(examples.importance.double(), w, rtol=1e-5, atol=1e-6)
        expected = examples.importance.double() * ce + 2.0 * divergence(natural.softmax(1), adv.softmax(1))
        assert_formula(objective, model, examples, expected)
        with torch.no_grad():  # another model in the next epoch
            model.head.bias.add_(torch.randn(4).double())


def test_a_row_is_its_images_wherever_the_batch_has_it():
    model, b = double()
    objective = SelfAdaptive(attack=KL_ATTACK, from_epoch=0)
    whole, parts = state_of(objective), state_of(objective)
    objective.perturb(model, b, whole, epoch=0)
    for rows in (slice(7, 12), slice(0, 7)):
        objective.perturb(model, Batch(b.x[rows], b.y[rows], b.index[rows]), parts, epoch=0)
    assert torch.allclose(whole.table, parts.table, atol=1e-7)
    assert whole.visited.all()


def test_the_number_of_images_has_to_be_known():
    with pytest.raises(UserError, match="give num_examples"):
        SelfAdaptive().init(num_classes=2, image_shape=(1, 8, 8))
