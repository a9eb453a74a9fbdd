"""Attacks that are fitted first: on which images, and once for all processes and resumptions."""

import pytest
import torch

from support.evaluations import evaluate, images, net, to_fit
from support.tiny import Killed
from uiat import L2, Linf, UserError
from uiat.attacks import PGD
from uiat.evaluation.engine.attack_target import AttackTarget
from uiat.evaluation.engine.fits import fit_stages
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import make_plan
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
from uiat.evaluation.listener import Silent
from uiat.inverse import UniversalAttack
from uiat.models.inspect import Target
from uiat.system.distributed import Rank


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (None, r"^uap-2 is fitted before it is tried, on images apart from those it is tried on: give them, fit=\(x"),
        (images(), "^fit: these are the images that are measured; give others"),
        ((torch.rand(4, 1, 5, 5), torch.zeros(4, dtype=torch.int64)), r"^fit: images \(1, 5, 5\) do not fit .*4, 4"),
        ((torch.rand(2, 1, 4, 4), torch.tensor([0, 3])), "^fit: the model tells 3 classes apart, but labels run up to"),
        ((2 + torch.rand(2, 1, 4, 4), torch.tensor([0, 1])), "images"),
    ],
)
def test_images_to_fit_on_that_are_none(fit, message):
    with pytest.raises(UserError, match=message):
        evaluate(net(), *images(), threat=Linf(0.05), attacks=["uap-2"], fit=fit)


def test_the_record_says_what_was_fitted_and_at_what_cost():
    x, y = images()
    result = evaluate(net(), x, y, threat=L2(0.5), attacks=["uap-3", "pgd-2"], fit=to_fit())
    assert result.budgets["uap-3"] == {
        **{"attack": "UniversalAttack", "threat": "L2:0.5", "passes": 3},
        **{"per_class": False, "targeted": False, "targets": 10},
    }
    clean = round(result.accuracy["clean"] * len(x))
    assert result.passes["uap-3"]["backward"] == 3 * 40
    assert 3 * 40 + clean <= result.passes["uap-3"]["forward"] <= 3 * 40 + 2 * clean  # what breaks is verified
    assert result.accuracy["worst"] <= result.accuracy["uap-3"] < result.accuracy["clean"]
    assert len(result.sums["fitting images"]) == 64
    assert "fitting images" not in evaluate(net(), x, y, threat=L2(0.5), attacks=["fgsm"], fit=to_fit()).sums


def test_a_fit_that_was_saved_is_not_made_again(tmp_path, monkeypatch):
    x, y = images()
    options = {"threat": Linf(0.1), "attacks": ["uap-2", "pgd-2"], "fit": to_fit(), "state": tmp_path / "state"}

    def killed(*words, **how):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PGD, "perturb", killed)
        with pytest.raises(Killed):
            evaluate(net(), x, y, **options)
    monkeypatch.setattr(UniversalAttack, "fit", killed)
    resumed = evaluate(net(), x, y, resume=True, **options)
    assert resumed.accuracy["uap-2"] < resumed.accuracy["clean"]
    (tmp_path / "state").unlink()
    with pytest.raises(Killed):
        evaluate(net(), x, y, **options)


def test_a_process_without_the_fit_takes_that_of_another(monkeypatch):
    plan, z = make_plan(["uap-2"], Linf(0.1)), torch.ones(1, 1, 1, 4, 4)
    other = iter([True, z])
    monkeypatch.setattr(Rank, "gather", lambda self, value: [value, next(other)])
    (x, y), outcomes = images(), Outcomes(torch.arange(0))
    target = AttackTarget(Target(net(), x), x, y, torch.arange(len(y)), AdaptiveBatchSize(9))
    assert fit_stages(plan, target, outcomes, None, Rank(0, 2), Silent())
    assert outcomes.fits["uap-2"] is z
