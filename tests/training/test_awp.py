"""Adversarial weight perturbation: where the weights are inside, and that nothing of it is left outside."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.helpers import assert_untouched, batch, cnn, mlp, snapshot
from uiat import PGDAT, UserError, make_step
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


def test_a_model_without_weights_to_perturb_is_refused_before_the_run():
    model = cnn()
    for p in model.parameters():
        p.requires_grad_(p.ndim < 2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with pytest.raises(UserError, match="awp perturbs weights of two dimensions and more, and the model trains none"):
        make_step(model, PGDAT(), optimizer, num_classes=3, image_shape=(1, 8, 8), awp=0.01)


@pytest.mark.parametrize("scale", [1.0, 1e-22, 1e-25, 1e-30, 0.0])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_tiny_gradients_move_the_weights_as_far_as_large_ones_and_none_nowhere(scale, size):
    model = nn.Linear(64, 64, bias=False)
    model.weight.data.mul_(size)
    before = model.weight.detach().clone()
    with adversarial_weights(model, lambda: scale * model(torch.ones(1, 64)).sum(), gamma=0.01):
        moved = (model.weight.detach() - before).norm() / before.norm()
    torch.testing.assert_close(moved, torch.tensor(0.01 if scale else 0.0), rtol=1e-3, atol=0)


def test_the_parts_of_a_loss_perturb_as_their_sum_does():
    model, other = mlp().eval(), nn.Linear(2, 2)
    b = batch()
    parts = [lambda rows=rows: 2 * F.cross_entropy(model(b.x[rows]), b.y[rows]) for rows in (slice(6), slice(6, 12))]
    weights = []
    for losses in (parts, [lambda: sum(part() for part in parts)]):
        with adversarial_weights(nn.ModuleList([model, other]), *losses, gamma=0.1):
            weights.append([p.detach().clone() for p in model.parameters()])
    torch.testing.assert_close(*weights)
