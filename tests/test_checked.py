import torch
from torch import nn

import tiny
import uiat
from uiat import Linf
from uiat.evaluation import judge


class Hot(nn.Module):
    """A temperature so low that cross entropy has no gradient."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 1e5 * self.inner(x)


def case():
    x, y = tiny.tensors(48)
    model = tiny.linear()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


def test_the_result_is_the_judges_with_a_verdict():
    model, x, y = case()
    options = {"threat": Linf(0.1), "attacks": ["pgd-2"]}
    checked, plain = uiat.evaluate(model, x, y, **options), judge.evaluate(model, x, y, **options)
    assert (checked.accuracy, checked.broken_by) == (plain.accuracy, plain.broken_by)
    assert "48 images" in checked.verdict
    assert not checked.verdict.startswith("do not believe")
    assert (plain.verdict, uiat.evaluate(model, x, y, **options, selfchecks=False).verdict) == ("", "")


def test_a_broken_defence_is_not_believed():
    model, x, y = case()
    result = uiat.evaluate(Hot(model), x, y, threat=Linf(0.1), attacks=["pgd-2"])
    assert result.verdict.startswith("do not believe this number: ")


def test_nothing_is_claimed_without_an_attack_and_nothing_checked():
    model, x, y = case()
    assert uiat.evaluate(model, x, y, threat=Linf(0.1), attacks=["clean"]).verdict == ""


def test_progress_tells_of_the_checks():
    model, x, y = case()
    told = []
    uiat.evaluate(model, x, y, threat=Linf(0.1), attacks=["fgsm"], progress=lambda *row: told.append(row))
    assert told[-2:] == [("self-checks", 0, 1), ("self-checks", 1, 1)]
