import pytest
import torch
from torch import nn

import uiat
from support import tiny
from uiat import Linf
from uiat.attacks import Square
from uiat.evaluation import registry


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
    checked, plain = uiat.evaluate(model, x, y, **options), uiat.evaluate(model, x, y, **options, selfchecks=False)
    assert (checked.accuracy, checked.broken_by) == (plain.accuracy, plain.broken_by)
    assert "48 images" in checked.verdict
    assert not checked.verdict.startswith("do not believe")
    assert plain.verdict == ""
    assert uiat.evaluation.evaluate is uiat.evaluate


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


class Detached(nn.Module):
    """A defence that detaches and quantises its input."""

    def __init__(self, inner, leave=lambda x: x.detach()):
        super().__init__()
        self.inner, self.leave = inner, leave

    def forward(self, x):
        return self.inner((self.leave(x) * 7).round() / 7)


@pytest.mark.parametrize("leave", [lambda x: x.detach(), lambda x: torch.from_numpy(x.numpy())])
def test_a_model_without_a_gradient_is_judged_by_what_needs_none_and_flagged(leave, tmp_path, monkeypatch):
    monkeypatch.setitem(registry._SEARCHES, "square", lambda threat: Square(threat=threat, iterations=50))
    model, x, y = case()
    attacks, state = ["fgsm", "autoattack", "noise-3", "square"], tmp_path / "state"
    result = uiat.evaluate(Detached(model, leave), x, y, threat=Linf(0.3), attacks=attacks, state=state)
    assert list(result.accuracy) == ["clean", "square", "noise-3", "worst"]
    assert result.accuracy["square"] < result.accuracy["clean"]
    assert result.warnings[0].startswith("not run: fgsm, autoattack, which need a gradient")
    assert result.verdict.startswith("do not believe this number: the output has no gradient")
    again = uiat.evaluate(Detached(model, leave), x, y, threat=Linf(0.3), attacks=attacks, state=state, resume=True)
    assert again.broken_by == result.broken_by


def test_a_model_without_a_gradient_is_flagged_where_nothing_could_be_run():
    model, x, y = case()
    result = uiat.evaluate(Detached(model), x[:5], y[:5], threat=Linf(0.1))
    assert list(result.accuracy) == ["clean", "worst"]
    assert "the output has no gradient" in result.verdict


def test_examples_cannot_be_made_on_a_model_without_a_gradient():
    model, x, y = case()
    with pytest.raises(uiat.UserError, match="the model to transfer from has no gradient"):
        uiat.evaluate(model, x, y, threat=Linf(0.1), attacks=["clean"], transfer=Detached(model))
