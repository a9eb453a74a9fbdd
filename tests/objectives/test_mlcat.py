"""MLCAT: what is below the least loss is held there and gives no gradient."""

import torch
import torch.nn.functional as F

from support.helpers import gradients, pgd
from support.objectives import assert_formula, double, state_of
from uiat import MLCAT


def test_mlcat_by_formula():
    model, b = double()
    objective = MLCAT(attack=pgd(), least_loss=1.4)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    ce = F.cross_entropy(model(examples.x_adv), b.y, reduction="none")
    assert 0 < (ce < 1.4).sum() < len(ce)
    # The authors' scale min_loss / loss where that is above 1, differentiated as they do.
    assert_formula(objective, model, examples, ce * torch.where(ce < 1.4, 1.4 / ce, torch.ones_like(ce)))
    found = objective.loss(model, examples)["adv_ce"]
    assert all(g.abs().max() < 1e-12 for g in gradients(found[ce < 1.4].sum(), model))
