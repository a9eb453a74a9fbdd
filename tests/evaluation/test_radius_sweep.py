import pytest

import uiat
from support import helpers
from uiat import L2, Linf
from uiat.evaluation.radius_sweep import epsilons, radius_sweep


def test_each_image_breaks_at_its_distance_to_the_border():
    model, x, y = helpers.at_distances()
    result = radius_sweep(model, x, y, threat=Linf(0.5), epsilons="0,0.1,0.2,0.3", attack="pgd-5")
    assert result.accuracy == [0.6, 0.4, 0.2, 0.0]
    assert result.broken_at == [0.1, 0.2, 0.3, 0.0, 0.0]
    assert (result.norm, result.n, result.attack, result.epsilons) == ("Linf", 5, "pgd-5", [0, 0.1, 0.2, 0.3])
    assert len(result.seconds) == 4


def test_below_zero_the_attack_helps():
    model, x, y = helpers.at_distances()
    result = radius_sweep(model, x, y, threat=Linf(0.5), epsilons="-0.2,-0.1,0,0.1", attack="pgd-5")
    assert result.accuracy == [1.0, 0.8, 0.6, 0.4]
    assert result.broken_at == [0.1, None, None, 0.0, 0.0]


def test_zero_need_not_be_asked_for():
    model, x, y = helpers.at_distances()
    result = radius_sweep(model, x, y, threat=Linf(0.5), epsilons=["0.1", 0.2], attack="fgsm")
    assert (result.epsilons, result.accuracy) == ([0.1, 0.2], [0.4, 0.2])
    assert result.broken_at == [0.1, 0.2, None, 0.0, 0.0]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("attack", ["apgd-ce", "autoattack-quick", "pgd-3-2"])
def test_other_attacks(attack):
    model, x, y = helpers.at_distances()
    assert radius_sweep(model, x, y, threat=L2(0.5), epsilons="0,0.9,1.7", attack=attack).accuracy == [0.6, 0.4, 0.2]


def test_a_smaller_radius_does_the_work_of_the_larger():
    model, x, y = helpers.at_distances()
    counted = helpers.Passes(model)
    radius_sweep(counted, x[:1].repeat(4, 1, 1, 1), y[:4], threat=Linf(0.5), epsilons="0.1", attack="pgd-5")
    once = sum(counted.forwards.values())
    counted.forwards.clear()
    radius_sweep(counted, x[:1].repeat(4, 1, 1, 1), y[:4], threat=Linf(0.5), epsilons="0.1,0.2,0.3,0.4", attack="pgd-5")
    assert sum(counted.forwards.values()) <= once + 3  # nothing is left to attack


def test_the_accuracy_never_rises_with_the_radius():
    model, batch = helpers.cnn(), helpers.batch(24)
    result = radius_sweep(
        model, batch.x, batch.y, threat=Linf(0.1), epsilons="-0.1,-0.05,0,0.05,...,0.2", attack="pgd-3"
    )
    assert result.accuracy == sorted(result.accuracy, reverse=True)
    again = radius_sweep(model, batch.x, batch.y, threat=Linf(0.1), epsilons=result.epsilons, attack="pgd-3")
    assert (again.accuracy, again.broken_at) == (result.accuracy, result.broken_at)


def test_progress_is_reported_by_radius():
    model, x, y = helpers.at_distances()
    calls = []
    radius_sweep(
        model, x, y, threat=Linf(0.5), epsilons="0,0.1", attack="pgd-2", progress=lambda *row: calls.append(row)
    )
    assert calls[0] == ("epsilon 0", 5, 5)
    assert calls[-1] == ("epsilon 0.1", 3, 3)


def test_the_old_name_still_works():
    assert uiat.sweep is uiat.radius_sweep is radius_sweep


def test_the_list_of_the_command_line():
    assert epsilons("0,2/255,...,16/255") == pytest.approx([2 * i / 255 for i in range(9)])
    assert epsilons("-2/255, 0") == pytest.approx([-2 / 255, 0])
    assert epsilons([0, "1/255", -0.0 + 0.5]) == pytest.approx([0, 1 / 255, 0.5])


MISTAKES = {
    "order": ("0,4/255,2/255", "epsilons must ascend, but 0.007843137 comes after 0.01568627"),
    "order below zero": ("-2/255,-4/255", "epsilons must ascend"),
    "twice": ("0,2/255,2/255", "epsilon 0.007843137 is in the list twice"),
    "twice nothing": ("-0,0", "epsilon 0 is in the list twice"),
    "text": ("0,two", "epsilon must be a number or a fraction"),
    "empty": ("", "epsilon must be a number"),
    "nothing": ([], "the list of epsilons is empty"),
    "dots first": ("...,8/255", "needs two of them before it"),
    "dots last": ("0,2/255,...", "needs two of them before it and one after it"),
    "dots that miss": ("0,2/255,...,7/255", "does not reach"),
    "pixels": ("0,2,4,8", 'Linf epsilon 2 is as large as the whole range.*did you mean "2/255"'),
    "pixels below zero": ("-8,0", 'did you mean "8/255"'),
    "nan": ([float("nan")], "epsilons? must be finite"),
}


@pytest.mark.parametrize(("values", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_list_that_cannot_be_meant_is_refused(values, says):
    model, x, y = helpers.at_distances()
    with pytest.raises(uiat.UserError, match=says):
        radius_sweep(model, x, y, threat=Linf(0.1), epsilons=values)


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        ("pdg-20", "did you mean 'pgd-K'"),
        ("clean", "a sweep needs an attack"),
        ("apgd-ce", "is an inverse attack, which is pgd-K, cw-K or fgsm and not apgd-ce"),
        ("autoattack", "is an inverse attack"),
    ],
)
def test_an_attack_that_cannot_be_swept_is_refused(attack, says):
    model, x, y = helpers.at_distances()
    with pytest.raises(uiat.UserError, match=says):
        radius_sweep(model, x, y, threat=Linf(0.1), epsilons="-0.1,0.1", attack=attack)
