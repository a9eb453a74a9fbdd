"""Adversarial weight perturbation and averages of weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.helpers import assert_untouched, batch, cnn, mlp, snapshot
from uiat.training.averaging import make_average, refresh_statistics, update_average
from uiat.training.awp import adversarial_weights


def loss_of(model: nn.Module):
    b = batch()
    return lambda: F.cross_entropy(model(b.x), b.y)


@pytest.mark.parametrize("build", [cnn, mlp])
@pytest.mark.parametrize("fail", [None, "inside", "in the loss", "half way"])
def test_weights_come_back_bit_for_bit(build, fail, monkeypatch):
    model = build().train()
    before = snapshot(model)
    loss = loss_of(model)
    if fail == "in the loss":

        def loss():
            raise KeyboardInterrupt
    elif fail == "half way":
        norm, calls = torch.Tensor.norm, []

        def interrupted(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return norm(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, "norm", interrupted)
    try:
        with adversarial_weights(model, loss, gamma=0.3):
            if fail == "inside":
                raise KeyboardInterrupt
            assert fail is None
    except KeyboardInterrupt:
        assert fail is not None
    monkeypatch.undo()
    assert_untouched(model, before)


def test_each_weight_moves_by_gamma_of_its_length_along_its_gradient():
    """Wu et al. 2020, eq. 10 and 12: v_l = gamma ||w_l|| g_l / ||g_l||, layer by layer; vectors stay."""
    model = mlp().eval()
    b = batch()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradient = dict(zip(before, torch.autograd.grad(loss_of(model)(), list(model.parameters())), strict=True))
    with adversarial_weights(model, lambda: F.cross_entropy(model(b.x), b.y), gamma=0.1):
        for name, p in model.named_parameters():
            g, w = gradient[name], before[name]
            expected = w + 0.1 * w.norm() * g / g.norm() if w.ndim > 1 else w
            torch.testing.assert_close(p.detach(), expected)
            assert torch.equal(p, w) == (w.ndim == 1)


@pytest.mark.parametrize("gamma", [1e-3, 0.01, 0.05])
def test_the_perturbation_raises_the_loss(gamma):
    model = cnn()
    loss = loss_of(model)
    before = loss().item()
    with adversarial_weights(model, loss, gamma=gamma):
        assert loss().item() > before
    with adversarial_weights(model, lambda: -loss(), gamma=gamma):
        assert loss().item() < before


def test_gradients_taken_inside_are_those_at_the_perturbed_weights():
    model = mlp().eval()
    loss = loss_of(model)
    loss().backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with adversarial_weights(model, loss, gamma=0.5):
        inside = torch.autograd.grad(loss(), list(model.parameters()))
        loss().backward()
    for p, here, there in zip(model.parameters(), inside, plain, strict=True):
        assert torch.equal(p.grad, here)
        assert not torch.allclose(p.grad, there)


def test_batchnorm_statistics_and_gradients_are_left_alone():
    model = cnn()
    loss_of(model)().backward()
    before = snapshot(model)
    with adversarial_weights(model, loss_of(model), gamma=0.1):
        pass
    assert_untouched(model, before)


def test_frozen_and_unused_weights_do_not_move():
    model = mlp()
    model[1].weight.requires_grad_(False)
    model.unused = nn.Linear(3, 3)
    model.forward = lambda x: nn.Sequential(*list(model)[:5])(x)
    before = snapshot(model)["state"]
    with adversarial_weights(model, loss_of(model), gamma=0.1):
        inside = model.state_dict()
        moved = {name for name in before if not torch.equal(inside[name], before[name])}
    assert moved == {"4.weight"}


def test_an_exponential_average_by_hand():
    model = nn.Linear(2, 1, bias=False)
    average = make_average(model, "ema", decay=0.9)
    values = []
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            model.weight.fill_(value)
        update_average(average, model)
        values.append(average.module.weight.mean().item())
    # The first update copies: there is nothing to average with yet.
    assert values == pytest.approx([1.0, 0.9 + 0.2, 0.9 * 1.1 + 0.4])


def test_an_equal_average_by_hand():
    model = nn.Linear(2, 1, bias=False)
    average = make_average(model, "swa", decay=0.9)
    for value in (1.0, 2.0, 6.0):
        with torch.no_grad():
            model.weight.fill_(value)
        update_average(average, model)
    assert average.module.weight.mean().item() == pytest.approx(3.0)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_is_that_of_torch(kind):
    model = cnn()
    ours, theirs = (make_average(model, kind, decay=0.7) for _ in range(2))
    for _ in range(4):
        with torch.no_grad():
            for value in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
                value.add_(torch.rand_like(value))
        update_average(ours, model)
        theirs.update_parameters(model)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])


def test_an_average_is_a_copy():
    model = cnn()
    average = make_average(model, "ema", decay=0.5)
    before = snapshot(model)
    update_average(average, model)
    with torch.no_grad():
        for p in average.module.parameters():
            p.zero_()
    assert_untouched(model, before)


def test_refreshed_statistics_are_those_of_the_images():
    model = nn.Sequential(nn.BatchNorm2d(1))
    model[0].running_mean.fill_(100.0)
    x = torch.rand(30, 1, 4, 4)
    refresh_statistics(model, x.split(10))
    torch.testing.assert_close(model[0].running_mean, x.mean().view(1))
    per_batch = torch.stack([part.var() for part in x.split(10)]).mean()
    torch.testing.assert_close(model[0].running_var, per_batch.view(1))
    assert model[0].momentum == 0.1
