"""Stand-ins for gradients: the forward pass is the defence's to the last bit, the backward pass the stand-in's."""

import copy

import pytest
import torch
from torch import nn

import uiat
from support.helpers import Binary, interior
from uiat import BPDA, CheckpointedSteps, Linf, UserError
from uiat.models.bpda import has_surrogate


def gradient(module, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(module(x).square().sum(), x)[0]


def rounding(x):
    return (7 * x).round() / 7


def test_forward_is_the_defence_and_backward_the_stand_in():
    x, network = torch.rand(3, 4), nn.Linear(4, 4)
    by_itself, by_network = BPDA(rounding), BPDA(rounding, network)
    for module in (by_itself, by_network):
        with torch.no_grad():
            assert torch.equal(module(x), rounding(x))
        assert torch.equal(module(x.clone().requires_grad_(True)), rounding(x))
    assert torch.equal(gradient(by_itself, x), 2 * rounding(x))
    assert torch.allclose(gradient(by_network, x), 2 * rounding(x) @ network.weight)
    assert has_surrogate(copy.deepcopy(nn.Sequential(by_itself, network)))


def test_a_stand_in_shows_an_attack_what_the_defence_hides():
    torch.manual_seed(0)
    inner, x = Binary(torch.randn(64)), interior(24)

    class Hidden(nn.Module):
        def forward(self, x):
            return inner(rounding(x))

    models = {"hidden": Hidden(), "shown": nn.Sequential(BPDA(rounding), inner)}
    y = Hidden()(x).argmax(1)
    options = {"threat": Linf(0.25), "attacks": ["pgd-5"], "selfchecks": False}
    left = {name: uiat.evaluate(model, x, y, **options).accuracy["worst"] for name, model in models.items()}
    assert left["shown"] < left["hidden"] - 0.3, left


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused():
    x = torch.rand(2, 4, requires_grad=True)
    with pytest.raises(UserError, match=r"returns shape \(2, 3\), and the image itself has \(2, 4\): give a surrogate"):
        BPDA(nn.Linear(4, 3))(x)
    with pytest.raises(UserError, match="the defence returns a float"):
        BPDA(lambda x: 1.0)(x)
    with pytest.raises(UserError, match="defence must be a function"):
        BPDA(3)
    with pytest.raises(UserError, match="there is no step"):
        CheckpointedSteps([])


def kept_bytes(module, x):
    """Bytes that the forward pass keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x.clone().requires_grad_(True))
    return sum(kept.values())


def test_checkpointed_steps_have_the_gradient_of_a_loop_for_the_memory_of_one_step():
    torch.manual_seed(0)
    layer = nn.Linear(16, 256)

    def step(x):  # random, as many purifiers are
        return x - 0.1 * (layer(x).tanh() @ layer.weight) + 0.01 * torch.randn_like(x)

    class Loop(nn.Module):
        def forward(self, x):
            for _ in range(30):
                x = step(x)
            return x

    x, gradients = torch.rand(8, 16), []
    for module in (Loop(), CheckpointedSteps([step] * 30)):
        torch.manual_seed(1)
        gradients.append(gradient(module, x))
    assert torch.equal(*gradients)
    assert kept_bytes(CheckpointedSteps([step] * 30), x) < kept_bytes(Loop(), x) / 5
    wrapped = CheckpointedSteps([layer, layer.weight.t().__rmatmul__])
    assert len(list(wrapped.parameters())) == 2
