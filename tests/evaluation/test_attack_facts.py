"""What is known of an attack holds whether it was asked for by name or given as an object."""

import pytest
import torch
from torch import nn

import uiat
from uiat import FGSM, PGD, Linf, Square
from uiat.attacks import APGD, FAB, FMN, Noise
from uiat.evaluation.attack_facts import averages, find_own_row, needs_gradient
from uiat.evaluation.registry import ROWS, attack
from uiat.evaluation.selfcheck.result_checks import is_averaged, is_scale_free, plain_attacks

THREAT = Linf(0.3)


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x.detach().flatten(1))


@pytest.fixture
def case():
    torch.manual_seed(0)
    model, x = Detached(16, 3), torch.rand(30, 1, 4, 4)
    return model, x, model(x).argmax(1)


def test_every_row_that_makes_settings_is_found_again_by_them():
    names = {"pgd-K": "pgd-4", "cw-K": "cw-4", "noise-R": "noise-4", "fmn-K": "fmn-4", "square-K": "square-4"}
    for row in ROWS:
        name = names.get(row.name, row.name)
        if row.make is None or "-K" in name or "-S" in name or row.name in ("clean", "transfer"):
            continue
        settings = attack(name, threat=Linf(0.1))
        own = find_own_row(type(settings).__name__, getattr(settings, "loss", None))
        assert (own.needs_gradient, own.scale_free) == (row.needs_gradient, row.scale_free), name


def test_own_attacks_without_a_gradient_break_a_model_without_one(case):
    model, x, y = case
    attacks = [Square(threat=THREAT, iterations=60), Noise(threat=THREAT, iterations=5), FGSM(threat=THREAT)]
    result = uiat.evaluate(model, x, y, threat=THREAT, attacks=attacks)
    assert result.accuracy["Square"] < 0.5
    assert set(result.accuracy) == {"clean", "Square", "noise", "worst"}
    assert result.warnings[0].startswith("not run: PGD, which need a gradient")
    assert not needs_gradient("mine", attacks[0])
    assert needs_gradient("mine", attacks[2])
    assert needs_gradient("mine", APGD(threat=THREAT))


def test_an_attack_given_as_an_object_counts_as_what_it_is():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(8, 1, 4, 4)
    averaging = [PGD(threat=THREAT, steps=2, draws=3), APGD(threat=THREAT, iterations=2, draws=2)]
    options = {"threat": THREAT, "selfchecks": False}
    assert is_averaged(uiat.evaluate(model, x, model(x).argmax(1), attacks=averaging, **options))
    many = [PGD(threat=THREAT, steps=2, loss="margin"), FAB(threat=THREAT, iterations=2)]
    result = uiat.evaluate(model, x, model(x).argmax(1), attacks=[*many, FMN(threat=THREAT, iterations=2)], **options)
    assert is_scale_free(result)
    assert plain_attacks(result) == ["PGD"]
    assert not is_averaged(result)
    plain = uiat.evaluate(model, x, model(x).argmax(1), attacks=[PGD(threat=THREAT, steps=2)], **options)
    assert not is_scale_free(plain)
    assert not averages("PGD")
