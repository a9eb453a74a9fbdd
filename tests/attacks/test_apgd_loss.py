"""Losses of Auto-PGD: by name, for labels and targets, with and without a gradient."""

import pytest
import torch

from uiat import losses
from uiat.attacks.apgd_loss import evaluate_loss, loss_values

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 2.0], [0.0, 5.0, 1.0, 2.0]])
POINTS = {"y": torch.tensor([0, 2]), "target": torch.tensor([2, 1])}


def test_each_name_is_its_loss():
    y, target = POINTS["y"], POINTS["target"]
    assert loss_values("ce", LOGITS, POINTS).equal(losses.cross_entropy(LOGITS, y))
    assert loss_values("dlr", LOGITS, POINTS).equal(losses.dlr(LOGITS, y))
    assert loss_values("targeted-dlr", LOGITS, POINTS).equal(losses.dlr_targeted(LOGITS, y, target))


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted-dlr"])
@pytest.mark.parametrize("last", [False, True])
def test_one_pass_gives_loss_verdict_and_gradient(loss, last):
    passes = []
    here = evaluate_loss(lambda x: passes.append(1) or 2 * x, POINTS, LOGITS / 2, loss=loss, last=last)
    assert len(passes) == 1
    assert here["broken"].tolist() == [False, True]
    torch.testing.assert_close(here["loss"], loss_values(loss, LOGITS, POINTS))
    assert ("gradient" in here) != last
    if not last:
        x = (LOGITS / 2).requires_grad_()
        (expected,) = torch.autograd.grad(loss_values(loss, 2 * x, POINTS).sum(), x)
        torch.testing.assert_close(here["gradient"], expected)
