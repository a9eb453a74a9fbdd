"""The loss terms of the methods that UIAT is compared with, by their formulas."""

import pytest
import torch
import torch.nn.functional as F

from support.helpers import batch, cnn, pgd
from support.objectives import KL_ATTACK, divergence, state_of
from uiat import PGDAT, Batch, Mart, Standard, Trades


def crafted(objective, model, b: Batch):
    model.eval()  # train-mode passes would see each other's statistics; the formulas do not depend on the mode
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    terms = objective.loss(model, examples)
    return examples, terms, model(b.x), None if examples.x_adv is None else model(examples.x_adv)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_standard_by_formula(smoothing):
    b = batch()
    _, terms, logits, _ = crafted(Standard(label_smoothing=smoothing), cnn(), b)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, b.y, label_smoothing=smoothing, reduction="none"))
    assert torch.equal(terms["correct"], logits.argmax(1) == b.y)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_pgd_at_by_formula(smoothing):
    b = batch()
    _, terms, _, adv = crafted(PGDAT(attack=pgd(), label_smoothing=smoothing), cnn(), b)
    torch.testing.assert_close(terms["adv_ce"], F.cross_entropy(adv, b.y, label_smoothing=smoothing, reduction="none"))
    assert torch.equal(terms["correct"], adv.argmax(1) == b.y)


def test_trades_by_formula():
    b = batch()
    _, terms, nat, adv = crafted(Trades(attack=KL_ATTACK, weight=2.0), cnn(), b)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(nat, b.y, reduction="none"))
    published = F.kl_div(F.log_softmax(adv, 1), F.softmax(nat, 1), reduction="none").sum(1)
    torch.testing.assert_close(terms["kl"], 2.0 * published, rtol=1e-4, atol=1e-6)


def test_mart_by_formula():
    b = batch()
    _, terms, nat, adv = crafted(Mart(attack=pgd(), weight=3.0), cnn(), b)
    p, q = nat.softmax(1), adv.softmax(1)
    true = p.gather(1, b.y[:, None]).squeeze(1)
    rival = q.masked_fill(F.one_hot(b.y, 4).bool(), 0).amax(1)
    bce = -q.gather(1, b.y[:, None]).squeeze(1).log() - (1 - rival).log()
    torch.testing.assert_close(terms["adv_bce"], bce)
    torch.testing.assert_close(terms["weighted_kl"], 3.0 * divergence(p, q) * (1 - true), rtol=1e-4, atol=1e-6)
