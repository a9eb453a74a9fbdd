"""LBGAT by its formula, for both networks; the natural one is trained with the model."""

import pytest
import torch
import torch.nn.functional as F

import uiat
from support.helpers import batch, cnn, gradients
from support.objectives import KL_ATTACK, assert_formula, assert_statistics_of, divergence, double, state_of
from uiat import LBGAT, total


@pytest.mark.parametrize("weight", [0.0, 6.0])
def test_lbgat_by_formula(weight):
    model, b = double()
    objective = LBGAT(attack=KL_ATTACK, weight=weight)
    state = state_of(objective, model=cnn(seed=5).double()).eval()
    examples = objective.perturb(model, b, state, epoch=0)

    def expected():
        adv, natural = model(examples.x_adv), state.natural(b.x)
        kl = divergence(model(b.x).softmax(1), adv.softmax(1))
        mse = ((adv - natural) ** 2).mean(1)
        return F.cross_entropy(natural, b.y, reduction="none") + mse + weight * kl

    assert_formula(objective, model, examples, expected())
    found = gradients(total(objective.loss(model, examples)).mean(), state.natural)
    for mine, theirs in zip(found, gradients(expected().mean(), state.natural), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-10)
    assert any(g.any() for g in found)


@pytest.mark.parametrize("weight", [0.0, 6.0])
def test_the_model_meets_natural_images_too_with_either_weight(weight):
    model, b = double()
    objective = LBGAT(attack=KL_ATTACK, weight=weight)
    examples = objective.perturb(model, b, state_of(objective, model=cnn(seed=5).double()), epoch=0)
    assert_statistics_of(objective, model, examples, examples.x_adv, b.x)


@pytest.mark.parametrize("awp", [0.0, 0.01])
def test_a_step_trains_both_networks_from_the_same_start(awp):
    model, b = cnn(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = uiat.make_step(model, LBGAT(attack=KL_ATTACK), optimizer, num_classes=4, image_shape=(1, 8, 8), awp=awp)
    natural = step.state.natural
    assert natural.training
    assert all(torch.equal(value, before[name]) for name, value in natural.state_dict().items())
    assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(model.parameters()))] * 2
    step(b, epoch=0)
    for network in (model, natural):
        moved = [not torch.equal(p, before[name]) for name, p in network.named_parameters()]
        assert all(moved)
    counts = [int(v) for name, v in natural.state_dict().items() if name.endswith("num_batches_tracked")]
    assert counts == [int(v) + 1 for name, v in before.items() if name.endswith("num_batches_tracked")]
