"""Patches: which changes they allow, what they break, and that no worst case over a ball counts them."""

import pytest
import torch

from support.evaluations import Threshold, evaluate, ramp
from uiat import Linf, UserError
from uiat.attacks import Patch, PatchAttack
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, begin
from uiat.evaluation.engine.misclassified import is_allowed
from uiat.evaluation.record import write_record
from uiat.runs.evaluation_record import read_record


def test_changes_in_one_square_are_allowed_and_others_are_not():
    x = torch.full((5, 3, 6, 8), 0.5)
    x_adv = x.clone()
    x_adv[0, 1, 2:5, 4:7] = 1.0
    x_adv[1, 0, 0, 0] = x_adv[1, 2, 3, 0] = 0.0  # four rows apart
    x_adv[2, 0, 3:6, 5:8] = 0.0
    x_adv[3, 0, 3, 5] = 1.1
    attack = PatchAttack(threat=Patch(3))
    assert is_allowed(attack, x_adv, x).tolist() == [True, False, True, False, True]
    assert Patch(3, (2, 4)).allows(x_adv, x).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("place", [None, (1, 2)])
def test_every_attempt_stays_in_its_square_and_breaks_what_that_can_break(place):
    model = Threshold()
    x, y = ramp()
    x, y = x[y == 1], y[y == 1]
    attack = PatchAttack(threat=Patch(2, place), iterations=15)
    points = begin(attack, model, x, y, keys(0, torch.arange(len(y))), attempt=2)
    corners = {tuple(mask[0].nonzero()[0].tolist()) for mask in points["mask"]}
    assert corners == {place} if place else len(corners) > 2
    found = advance(attack, model, points, 0, 15)
    assert attack.threat.allows(found["x_t"], x).all()
    # Four of sixteen pixels at 0 take a quarter from the mean, which has to fall to 0.5.
    assert found["broken"].equal(x.flatten(1).mean(1) * 0.75 < 0.5)
    assert attack.threat.allows(found["x_adv"], x).all()


def test_a_patch_that_does_not_fit_is_refused_in_a_line():
    x, y = ramp()
    with pytest.raises(UserError, match=r"^patch-5: a patch of 5 x 5 pixels is larger than the images, 4 x 4$"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=["fgsm", "patch-5"])
    with pytest.raises(UserError, match=r"a patch of 2 pixels at \(3, 0\) leaves the images, 4 x 4"):
        Patch(2, (3, 0)).check_fits((1, 4, 4))


@pytest.mark.parametrize("options", [{}, {"calls": 2}], ids=["one call", "two"])
def test_it_is_measured_and_no_part_of_the_worst_case(tmp_path, options):
    x, y = ramp()
    result = evaluate(Threshold(), x, y, threat=Linf(0.03), attacks=["patch-3", "fgsm"], **options)
    assert result.accuracy["patch-3"] < result.accuracy["fgsm"] == result.accuracy["worst"]
    assert set(result.broken_by) <= {"", "clean", "fgsm"}
    assert result.budgets["patch-3"]["threat"] == "Patch(size=3, place=None)"
    write_record(tmp_path / "evaluation.json", result.to_json())
    assert read_record(tmp_path / "evaluation.json")["accuracy"] == result.accuracy
