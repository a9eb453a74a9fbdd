"""Questions about objectives, asked of each of the package's own and of one of the user's."""

from dataclasses import replace

import pytest
import torch

from support.helpers import pgd
from support.objectives import INSTANCE, OBJECTIVES, ONE_OFF, UNIVERSAL, state_of, uiat
from uiat import PGDAT, UIAT, Standard
from uiat.objectives import METHOD_NAMES, abilities


class Mine:
    """An objective of one's own without any of the fields that are asked for."""

    name, threat = "mine", None
    init = perturb = loss = staticmethod(lambda *_, **__: None)


def test_the_union_gives_the_names_of_the_methods():
    rivals = ["hat", "score", "dkl", "lbgat", "fat", "sat", "mlcat", "squeeze", "dhat", "ard", "rslad", "adr", "gairat"]
    assert ("standard", "pgd-at", "trades", "mart", "uiat", *rivals) == METHOD_NAMES
    assert {objective.name for objective in OBJECTIVES.values()} == set(METHOD_NAMES)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_universal_perturbations_are_those_of_the_state(name):
    objective = OBJECTIVES[name]
    state = state_of(objective)
    universal = abilities.universal_of(objective, state)
    assert (abilities.generator_in(state) is not None) == (name == "generator")
    if objective.name != "uiat" or name in ("iat", "generator"):
        assert universal is None
        return
    assert torch.equal(universal.z, state.z)
    assert universal.threat == type(objective.threat)(objective.inverse.radius)


@pytest.mark.parametrize(
    ("epoch", "epochs", "expected"),
    [
        (None, 5, [(5, 0)]),
        (2, 5, [(2, 0), (1, 2), (2, 3)]),
        (0, 5, [(1, 0), (4, 1)]),
        (4, 5, [(4, 0), (1, 4)]),
        (0, 1, [(1, 0)]),
    ],
)
def test_a_one_off_has_up_to_three_phases(epoch, epochs, expected):
    objective = uiat(inverse=replace(UNIVERSAL, epoch=epoch))
    assert abilities.phases(objective, epochs) == expected
    assert abilities.one_off_epoch(objective) == epoch


def test_an_objective_without_the_field_has_not_the_ability():
    for objective in (Standard(), Mine()):
        assert abilities.attack_of(objective) is None
        assert not abilities.is_single_step(objective)
        assert not abilities.is_second_order(objective)
        assert not abilities.reads_adversarial_examples(objective)
        assert abilities.one_off_epoch(objective) is None
        assert abilities.phases(objective, 3) == [(3, 0)]
        assert abilities.without_warm_start(objective) is objective
        assert abilities.universal_of(objective, torch.nn.Module()) is None


@pytest.mark.parametrize(("steps", "single"), [(0, True), (1, True), (2, False)])
def test_single_step_is_one_step_or_those_of_replays(steps, single):
    for kind in (PGDAT, UIAT):
        assert abilities.is_single_step(kind(attack=pgd(steps, start="uniform"))) is single


def test_a_regulariser_reads_the_adversarial_examples_in_either_kind_of_inverse():
    for inverse in (UNIVERSAL, INSTANCE, ONE_OFF):
        assert not abilities.reads_adversarial_examples(uiat(inverse=inverse))
        assert abilities.reads_adversarial_examples(uiat(inverse=replace(inverse, regulariser="feature")))


def test_a_warm_start_alone_is_taken_away():
    warm = uiat(inverse=replace(ONE_OFF, warm_start="runs/a"))
    assert abilities.without_warm_start(warm) == uiat(inverse=ONE_OFF)
    assert abilities.without_warm_start(uiat(inverse=INSTANCE)) == uiat(inverse=INSTANCE)
