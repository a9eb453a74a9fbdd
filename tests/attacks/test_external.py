"""A callable as an attack: checked, projected, given copies and random numbers of its own."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from support.helpers import interior, mlp
from uiat import L2, Linf, UserError
from uiat.attacks import External

Y = torch.tensor([0, 1])


def perturb(find, x=None, *, threat=None, seed=0, model=None):
    attack = External(name="mine", find=find, threat=threat or Linf(0.1))
    return attack.perturb(model or mlp(), interior(2) if x is None else x, Y, seed=seed)


def test_what_leaves_the_ball_or_the_range_is_projected_and_counted():
    x = torch.tensor([[0.5, 0.95], [0.5, 0.5]]).view(2, 1, 1, 2)
    steps = torch.tensor([[0.3, 0.09], [0.1, -0.1]]).view(2, 1, 1, 2)
    x_adv, projected = perturb(lambda model, x, y: x + steps, x, model=nn.Flatten())
    torch.testing.assert_close(x_adv.flatten(1), torch.tensor([[0.6, 1.0], [0.6, 0.4]]))
    assert projected.tolist() == [True, False]  # rounding is no departure
    x_adv, projected = perturb(lambda model, x, y: x + steps, x, model=nn.Flatten(), threat=L2(0.2))
    assert L2(0.2).length(x_adv - x).max() <= 0.2 + 1e-6
    assert projected.tolist() == [True, False]


def test_it_may_write_into_what_it_is_given():
    x = interior(2)
    before = x.clone()
    perturb(lambda model, x, y: x.add_(0.05), x)
    assert torch.equal(x, before)


def test_it_has_gradients_and_its_own_random_numbers():
    def find(model, x, y):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
        return x + 0.01 * gradient.sign() + 1e-3 * (torch.rand(1) + float(np.random.rand()) + random.random())

    model = mlp()
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with torch.no_grad():
        one, again, other = (perturb(find, model=model, x=torch.full((2, 1, 8, 8), 0.5), seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not one.requires_grad
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()
    assert random.getstate() == state[2]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("find", "says"),
    [
        (lambda model, x, y: None, "mine returns a NoneType, not a tensor of images"),
        (lambda model, x, y: x.numpy(), "returns a ndarray"),
        (lambda model, x, y: x[:1], "shape (1, 1, 8, 8) for images of shape (2, 1, 8, 8)"),
        (lambda model, x, y: x.double(), "torch.float64 on cpu for images of torch.float32"),
        (lambda model, x, y: x.to("meta"), "on meta for images of torch.float32 on cpu"),
        (lambda model, x, y: x / 0, "NaN or infinite pixels"),
        (lambda model, x, y: x + float("nan"), "NaN or infinite pixels"),
        (lambda model, x, y: {}["a"], "the attack mine ended with KeyError: 'a'"),
        (lambda model: model, "the attack mine ended with TypeError"),
    ],
)
def test_what_is_no_image_is_refused(find, says):
    with pytest.raises(UserError) as refused:
        perturb(find)
    assert says in str(refused.value)


def test_memory_that_runs_out_is_left_to_the_evaluation():
    def find(model, x, y):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        perturb(find)
