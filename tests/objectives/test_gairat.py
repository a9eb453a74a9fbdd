"""GAIRAT: the steps that an image withstands are counted, and weigh it."""

import torch
import torch.nn.functional as F

from support.helpers import at_distances, pgd
from support.objectives import assert_formula, double, state_of
from uiat import GAIRAT, Batch, Linf


def test_kappa_counts_the_steps_before_which_an_image_was_still_right():
    model, x, y = at_distances()  # 0.05, 0.15, 0.25 inside, 0.05, 0.15 outside of its class
    objective = GAIRAT(attack=pgd(6, step_size=0.04, start="none", threat=Linf(0.3)))
    state = objective.init(num_classes=2, image_shape=(1, 8, 8))
    examples = objective.perturb(model, Batch(x, y, torch.arange(5)), state, epoch=60)
    # An image at distance d is right before steps 0, 1, ... while 0.04 t < d: 2, 4, 6 of 6, and never outside.
    kappa = torch.tensor([2.0, 4.0, 6.0, 0.0, 0.0])
    weights = (1 + torch.tanh(-1 + 5 * (1 - 2 * kappa / 6))) / 2
    torch.testing.assert_close(examples.importance, weights * 5 / weights.sum())


def test_gairat_by_formula():
    model, b = double()
    objective = GAIRAT(attack=pgd(4), from_epoch=2, shift=0.0)
    for epoch in (1, 2):
        examples = objective.perturb(model, b, state_of(objective), epoch=epoch)
        ce = F.cross_entropy(model(examples.x_adv), b.y, reduction="none")
        if epoch == 1:
            assert examples.importance is None
            assert_formula(objective, model, examples, ce)
            continue
        w = examples.importance.double()
        assert abs(float(w.mean()) - 1) < 1e-6
        assert w.std() > 0.1
        assert_formula(objective, model, examples, w * ce)


def test_weights_fall_with_the_distance():
    weights = GAIRAT().weigh(torch.arange(11.0))
    assert (weights.diff() <= 0).all()
    assert abs(float(weights[5]) - (1 + torch.tanh(torch.tensor(-1.0)).item()) / 2) < 1e-6
