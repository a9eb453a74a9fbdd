"""The projected-gradient loop by hand; what its settings do to a model is in test_pgd.py."""

import pytest
import torch

from uiat import L2, Linf
from uiat.attacks import input_gradient, projected_gradient
from uiat.attacks.gradient import expected_gradient
from uiat.errors import UserError


def test_the_loop_by_hand():
    """A loss of slope (3, -4): in L2 each step goes 0.6 and -0.8 of its length, up to the ball and the range."""
    x = torch.tensor([[0.5, 0.5], [0.5, 0.02]])

    def loss(v):
        return v @ torch.tensor([3.0, -4.0]), v

    for steps, way in ((1, 0.1), (2, 0.2), (3, 0.25)):
        x_t, value = projected_gradient(loss, x, x, threat=L2(0.25), step_size=0.1, steps=steps)
        assert value is None
        torch.testing.assert_close(x_t[0], torch.tensor([0.5 + 0.6 * way, 0.5 - 0.8 * way]))
        assert x_t[1, 1] == 0
    down, value = projected_gradient(loss, x, x, threat=L2(0.25), step_size=0.1, steps=2, descend=True, keep_best=True)
    torch.testing.assert_close(down[0], torch.tensor([0.38, 0.66]))
    torch.testing.assert_close(value, loss(down)[0])


def test_off_the_ball_iterates_stay_in_the_range():
    x = torch.full((1, 2), 0.5)
    x_t, _ = projected_gradient(lambda v: (v.sum(1), v), x, x, threat=Linf(0.1), step_size=0.4, steps=2, bounded=False)
    assert x_t.tolist() == [[1.0, 1.0]]


def test_the_best_iterate_may_be_the_start():
    """From the top of a concave loss every step leads down."""
    x = torch.full((1, 1, 2, 2), 0.5)
    best, value = projected_gradient(
        lambda v: (-(v - 0.5).abs().flatten(1).sum(1) + 0 * v.flatten(1).sum(1), v),
        x,
        x,
        threat=Linf(0.1),
        step_size=0.1,
        steps=2,
        keep_best=True,
    )
    assert torch.equal(best, x)
    assert value.item() == 0


def test_several_passes_of_a_random_model_are_averaged():
    slopes = iter([1.0, 2.0, 6.0])

    def loss(v):
        slope = next(slopes)
        return slope * v.sum(1), slope * v

    mean = expected_gradient(loss, torch.ones(1, 2), draws=3)
    assert (mean.gradient.tolist(), mean.values.tolist(), mean.logits.tolist()) == ([[3.0, 3.0]], [6.0], [[3.0, 3.0]])


def test_a_gradient_that_does_not_reach_the_images_is_refused():
    with pytest.raises(UserError, match="detaches or quantises"):
        input_gradient(lambda x: (x.detach().sum(1), x), torch.zeros(1, 2))
