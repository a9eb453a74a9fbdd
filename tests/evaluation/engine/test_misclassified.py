"""NaN is no answer, and an example has to be in the ball and in [0, 1]."""

import torch

from uiat import L2
from uiat.attacks import Noise
from uiat.evaluation.engine.misclassified import count_misclassified, is_allowed


def test_calls_are_counted_image_by_image():
    answers = iter([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [float("nan"), 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    count = count_misclassified(lambda x: torch.tensor(next(answers)), torch.zeros(2, 1), torch.tensor([0, 0]), 3)
    assert count.tolist() == [1, 2]


def test_an_example_is_in_the_ball_and_in_the_range():
    x = torch.tensor([[0.5, 0.9]]).expand(3, -1)
    x_adv = x + torch.tensor([[0.06, 0.08], [0.08, 0.08], [0.0, 0.1 + 1e-3]])
    assert is_allowed(Noise(threat=L2(0.1)), x_adv, x).tolist() == [True, False, False]
