"""Short attacks on some images of a case: what they break, and that NaN is no answer."""

import torch
from torch import nn

from support.helpers import Binary, interior
from uiat import Linf
from uiat.attacks import PGD, Noise
from uiat.evaluation.selfcheck.case import Case
from uiat.models.inspect import Target


def case_of(model, x):
    y = model(x).argmax(1)
    return Case(Target(model, x, classes=2), x, y, Linf(0.25), 0, 4)


def test_attacks_break_rows_of_the_mask_alone():
    torch.manual_seed(0)
    case, mask = case_of(Binary(torch.randn(64)), interior(6)), torch.tensor([True, False] * 3)
    pgd = PGD(threat=Linf(0.25), step_size=0.25, steps=2)
    assert case.find_broken(pgd).all()
    assert case.find_broken(pgd, mask).equal(mask)
    assert not case.find_broken(Noise(threat=Linf(1e-4), iterations=2)).any()
    assert not case.find_broken(pgd, torch.zeros(6, dtype=torch.bool)).any()
    assert case.map_batches(lambda x, y: y, case.x).equal(case.y)


def test_nan_is_no_answer():
    class Fragile(nn.Module):
        def forward(self, x):
            mean = x.flatten(1).mean(1, keepdim=True)
            return torch.cat([mean, 1 - mean], dim=1) / (mean > 0.4)

    x = torch.full((3, 1, 8, 8), 0.6)
    case = case_of(Fragile(), x)
    assert not case.find_broken(PGD(threat=Linf(0.25), step_size=0.25, steps=2)).any()
