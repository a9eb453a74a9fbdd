"""State of inverse adversaries: the momentum on predictions by hand, and the buffers that are saved."""

import torch

from uiat.inverse import InverseState


def state_of(rows):
    return InverseState(None, gradient_momentum=False, rows=rows, num_classes=2)


def test_predictions_of_examples_are_averaged_from_their_first_visit_on():
    state, rows = state_of(4), torch.tensor([2, 0])
    first, second = torch.tensor([[0.8, 0.2], [0.1, 0.9]]), torch.tensor([[0.4, 0.6], [0.5, 0.5]])
    assert state.recall(rows, 0.75)[1].flatten().tolist() == [0.0, 0.0]
    state.remember(rows, first, 0.75, by_class=False)
    assert torch.equal(state.p_bar[rows], first)
    state.remember(rows, second, 0.75, by_class=False)
    torch.testing.assert_close(state.p_bar[rows], 0.75 * first + 0.25 * second)
    assert state.visited.tolist() == [True, False, True, False]
    assert state.p_bar[[1, 3]].eq(0).all()


def test_predictions_of_a_class_are_its_images_mean():
    state, p = state_of(2), torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]])
    state.remember(torch.tensor([1, 1, 1]), p, 0.75, by_class=True)
    torch.testing.assert_close(state.p_bar, torch.stack([torch.zeros(2), p.mean(0)]))
    state.remember(torch.tensor([1, 0, 0]), p, 0.75, by_class=True)
    torch.testing.assert_close(state.p_bar, torch.stack([p[1:].mean(0), 0.75 * p.mean(0) + 0.25 * p[0]]))


def test_only_the_buffers_that_are_needed_are_there():
    z = torch.zeros(2, 1, 4, 4)
    state = InverseState(z, gradient_momentum=True, rows=0, num_classes=2)
    assert {name for name, _ in state.named_buffers()} == {"z", "g"}
    assert {name for name, _ in state_of(3).named_buffers()} == {"p_bar", "visited"}
