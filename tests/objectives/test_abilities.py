"""Questions about objectives, asked of each of the package's own and of one of the user's."""

from dataclasses import replace

import pytest
import torch

from support.helpers import batch, cnn, pgd
from support.objectives import INSTANCE, OBJECTIVES, ONE_OFF, UNIVERSAL, state_of, uiat
from uiat import PGDAT, UIAT, Standard, make_step, recipes
from uiat.errors import UserError
from uiat.objectives import METHOD_NAMES, Examples, abilities


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


TAKES_SOFT = ["standard", "pgd-at", "trades", "uiat", "uiat detached", "iat", "one-off", "generator", "lbgat", "mlcat"]


def test_methods_that_need_one_class_an_image_refuse_mixed_ones():
    assert [name for name in OBJECTIVES if abilities.takes_soft_labels(OBJECTIVES[name])] == TAKES_SOFT
    assert not abilities.takes_soft_labels(Mine())
    with pytest.raises(UserError, match=r"uiat with objective.momentum class needs one class an image: set data.mixup"):
        abilities.require_soft_labels(OBJECTIVES["class momentum"])
    mixed, model = replace(batch(), soft_labels=torch.full((12, 4), 0.25)), cnn()
    step = make_step(
        model, OBJECTIVES["mart"], torch.optim.SGD(model.parameters(), lr=0.1), num_classes=4, image_shape=(1, 8, 8)
    )
    with pytest.raises(UserError, match="mart needs one class an image"):
        step(replace(mixed, soft_labels=mixed.soft_labels[: len(mixed.y)]))


@pytest.mark.parametrize("name", TAKES_SOFT)
def test_soft_labels_are_the_mean_of_hard_ones(name):
    """The cross entropy is linear in the label, and one-hot probabilities are the label itself."""
    objective, model, given = OBJECTIVES[name], cnn().eval(), batch()
    one_hot = torch.nn.functional.one_hot(given.y, 4).float()
    found = []
    for soft in (None, one_hot):
        torch.manual_seed(2)
        state = state_of(objective, model=model)
        found.append(objective.perturb(model, replace(given, soft_labels=soft), state, epoch=1))
    hard, soft = found
    assert soft.soft_labels is one_hot
    for field in ("x_adv", "x_inv", "target"):
        if getattr(hard, field) is not None:
            torch.testing.assert_close(getattr(soft, field), getattr(hard, field))
    other = (given.y + 1) % 4
    mixed = 0.7 * one_hot + 0.3 * torch.nn.functional.one_hot(other, 4)
    plain = replace(OBJECTIVES[name], least_loss=0.0) if name == "mlcat" else objective

    def terms(examples: Examples) -> dict[str, torch.Tensor]:
        return plain.loss(model, examples)

    own, others, both = (terms(e) for e in (hard, replace(hard, y=other), replace(hard, soft_labels=mixed)))
    for term, value in both.items():
        if term != "correct":
            torch.testing.assert_close(value, 0.7 * own[term] + 0.3 * others[term])
    assert torch.equal(both["correct"], own["correct"])  # of the larger share


def test_attacks_climb_the_cross_entropy_of_soft_labels():
    """Of a linear model the gradient for probabilities t is W (p - t); the margin needs one class, and takes y."""
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(6, 3), torch.rand(5, 6) / 2 + 0.25, torch.tensor([0, 1, 2, 0, 1])
    t = torch.softmax(torch.randn(5, 3), dim=1)
    step = pgd(steps=1, start="none", step_size=0.1)
    x_adv = step.perturb(model, x, y, soft_labels=t)
    expected = ((torch.softmax(model(x), dim=1) - t) @ model.weight).sign()
    torch.testing.assert_close(x_adv, x + 0.1 * expected)
    assert not torch.equal(x_adv, step.perturb(model, x, y))
    margin = replace(step, loss="margin")
    assert torch.equal(margin.perturb(model, x, y, soft_labels=t), margin.perturb(model, x, y))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_method_crafts_with_dropout_or_drop_path(name):
    timm = pytest.importorskip("timm")
    model = torch.nn.Sequential(timm.layers.DropPath(0.5), cnn(), torch.nn.Dropout(0.5)).train()
    if "feature" in getattr(getattr(OBJECTIVES[name], "inverse", None), "regulariser", ""):
        return
    modes = []
    model[0].register_forward_hook(lambda layer, given, out: modes.append(layer.training))
    model[2].register_forward_hook(lambda layer, given, out: modes.append(layer.training))
    objective, given = OBJECTIVES[name], batch()
    examples = objective.perturb(model, given, state_of(objective, model=cnn(), teacher=cnn()), epoch=1)
    assert not any(modes)
    assert model.training
    modes.clear()
    objective.loss(model, examples)
    assert all(modes)
    assert modes


def test_an_attack_of_no_steps_has_none_while_it_warms_up_either():
    free = recipes.get("digits-free").objective
    assert abilities.with_steps(free, 0.5).attack.steps == free.attack.steps == 0
