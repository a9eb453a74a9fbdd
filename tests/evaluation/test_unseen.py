import json
import math

import pytest
import torch
from torch import nn

from support import helpers
from uiat import L2, Linf, UserError
from uiat.data.catalog import USUAL_THREATS
from uiat.evaluation.unseen import evaluate_unseen, usual_threats
from uiat.threat import parse


class Mean(nn.Module):
    """Two classes told apart by the mean of the first row of pixels alone, class 1 being above 0.5."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.full((4,), 5.0))

    def forward(self, x):
        score = x[:, 0, 0] @ self.w - 10
        return torch.stack([-score, score], dim=1)


def ramp(n=11):
    """Grey images from 0.25 to 0.75: the first row is |grey - 0.5| per pixel from the boundary."""
    grey = torch.linspace(0.2525, 0.7525, n)
    return grey.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), (grey > 0.5).long()


def test_every_threat_and_their_union_in_closed_form():
    x, y = ramp()
    y[10] = 0  # wrong as it is
    margin = (x[:, 0, 0, 0] - 0.5).abs()
    linf, l2 = margin > 0.06, 2 * margin > 0.25  # the distance in L2 is sqrt(4) times the margin of a pixel
    correct = torch.arange(11) < 10
    result = evaluate_unseen(Mean(), x, y, trained=Linf(0.06), threats=["L2:0.25"], attack="pgd-10")
    expected = {
        "clean": correct,
        "Linf:0.06": correct & linf,
        "L2:0.25": correct & l2,
        "union": correct & linf & l2,
        "unseen": correct & l2,
    }
    assert result.accuracy == pytest.approx({name: mask.double().mean().item() for name, mask in expected.items()})
    assert result.trained == "Linf:0.06"
    broken = result.broken_by
    assert broken[10] == ["Linf:0.06", "L2:0.25"]
    assert [not names for names in broken] == expected["union"].tolist()


def test_union_is_below_the_worst_single_threat():
    model, batch = helpers.cnn(), helpers.batch(24)
    y = model.eval()(batch.x).argmax(1)
    result = evaluate_unseen(model, batch.x, y, threats=["Linf:0.02", "L2:0.15"], attack="pgd-3")
    shares = result.accuracy
    assert shares["union"] <= min(shares["Linf:0.02"], shares["L2:0.15"])
    assert "unseen" not in shares
    assert shares["clean"] == 1


def test_the_trained_threat_takes_the_place_of_the_usual_one():
    x, y = ramp(4)
    plain = evaluate_unseen(Mean(), x, y, data="mnist", attack="fgsm")
    assert list(plain.results) == list(USUAL_THREATS["mnist"])
    trained = evaluate_unseen(Mean(), x, y, data="mnist", trained=L2(0.5), attack="fgsm")
    assert list(trained.results) == ["L2:0.5", "Linf:0.3", "L1:10"]
    usual_one = evaluate_unseen(Mean(), x, y, threats=["Linf:0.1", "L2:0.5"], trained=Linf("0.1"), attack="fgsm")
    assert list(usual_one.results) == ["Linf:0.1", "L2:0.5"]
    same = evaluate_unseen(Mean(), x, y, data="mnist", trained=Linf(0.3), attack="fgsm")
    assert (list(same.results), same.trained) == (["Linf:0.3", "L2:2", "L1:10"], "Linf:0.3")
    fraction = evaluate_unseen(Mean(), x, y, threats=["L2:0.5", "Linf:8/255"], trained=Linf(8 / 255), attack="fgsm")
    assert (list(fraction.results), fraction.trained) == (["Linf:8/255", "L2:0.5"], "Linf:8/255")
    several = evaluate_unseen(Mean(), x, y, threats=["Linf:0.1", "Linf:0.2"], trained=Linf(0.05), attack="fgsm")
    assert list(several.results) == ["Linf:0.05", "Linf:0.1", "Linf:0.2"]


@pytest.mark.parametrize("data", USUAL_THREATS)
def test_usual_threats_are_one_of_each_norm(data):
    assert [parse(text).norm for text in usual_threats(data)] == ["Linf", "L2", "L1"]


def test_every_norm_has_its_reach():
    x, y = ramp(8)
    result = evaluate_unseen(Mean(), x, y, threats=["Linf:0.1", "L2:0.2", "L1:0.4"], attack="pgd-20")
    # All three reach a change of 0.1 in each of the four pixels that count.
    shares = result.accuracy
    expected = ((x[:, 0, 0, 0] - 0.5).abs() > 0.1).double().mean().item()
    assert [shares[name] for name in ("Linf:0.1", "L2:0.2", "L1:0.4", "union")] == pytest.approx([expected] * 4)


def test_record_and_progress():
    x, y = ramp(5)
    calls = []
    result = evaluate_unseen(
        Mean(), x, y, trained=Linf(0.1), threats=["L2:0.2"], attack="pgd-3", progress=lambda *t: calls.append(t)
    )
    record = json.loads(json.dumps(result.to_json()))
    assert record["accuracy"] == result.accuracy
    assert record["results"]["L2:0.2"]["n"] == 5
    assert record["attack"] == "pgd-3"
    assert {name for name, *_ in calls} >= {"Linf:0.1 pgd-3", "L2:0.2 pgd-3"}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either"),
        ({"data": "mnist", "threats": ["L2:1"]}, "give either"),
        ({"data": "cifar"}, "did you mean 'cifar10'"),
        ({"data": "digits"}, "name the threat models"),
        ({"threats": "Linf:0.1,L2:1"}, "must be a list"),
        ({"threats": []}, "at least one"),
        ({"threats": ["L7:1"]}, "unknown norm"),
        ({"threats": ["L2:0.1"], "attack": "pdg-3"}, "unknown attack"),
        ({"threats": ["L2:1"], "trained": 0.1}, "trained must be a threat model"),
    ],
)
def test_what_cannot_be(settings, message):
    x, y = ramp(4)
    with pytest.raises(UserError, match=message):
        evaluate_unseen(Mean(), x, y, **settings)


def test_radii_are_what_they_should_be():
    assert math.isclose(float(parse(usual_threats("cifar10")[0]).epsilon), 8 / 255)


def test_an_attack_that_needs_a_gradient_is_refused_where_there_is_none():
    class Detached(Mean):
        def forward(self, x):
            return super().forward(x.detach())

    x, y = ramp()
    options = {"threats": ["Linf:0.3"]}
    for attack in ("pgd-2", "autoattack"):
        with pytest.raises(UserError, match=f"{attack} needs a gradient, and the model's output has none"):
            evaluate_unseen(Detached(), x, y, attack=attack, **options)
    assert evaluate_unseen(Detached(), x, y, attack="square-20", **options).accuracy["union"] < 1
