"""torchattacks' call shape gives this package's attacks, and its targeted modes aim where they say."""

import pytest
import torch
from torch import nn

import uiat
from support.helpers import interior, mlp
from uiat import L2, Linf, UserError
from uiat.attacks import FGSM, PGD
from uiat.compat import torchattacks

X, Y = interior(6), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return mlp().eval()


def seeded(call):
    torch.manual_seed(3)
    return call(X, Y)


def test_they_are_the_packages_own_attacks(model):
    pairs = [
        (torchattacks.FGSM(model, eps=0.1), FGSM(threat=Linf(0.1))),
        (torchattacks.PGD(model, eps=0.1, alpha=0.03, steps=4), PGD(threat=Linf(0.1), step_size=0.03, steps=4)),
        (
            torchattacks.PGD(model, eps=0.1, alpha=0.03, steps=4, random_start=False),
            PGD(threat=Linf(0.1), step_size=0.03, steps=4, start="none"),
        ),
        (torchattacks.PGDL2(model, eps=0.5, alpha=0.2), PGD(threat=L2(0.5), step_size=0.2, steps=10)),
        (
            torchattacks.CWPGD(model, eps=0.1, alpha=0.03),
            PGD(threat=Linf(0.1), step_size=0.03, steps=10, loss="margin"),
        ),
    ]
    for theirs, ours in pairs:
        torch.testing.assert_close(seeded(theirs), seeded(lambda x, y, ours=ours: ours(model, x, y)))


def test_a_targeted_attack_lowers_the_loss_at_its_target(model):
    attack = torchattacks.PGD(model, eps=0.2, alpha=0.05, steps=5)
    target = (Y + 1) % 4
    modes = {
        "by label": (attack.set_mode_targeted_by_label, target, target),
        "by function": (lambda: attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % 4), Y, target),
        "least likely": (
            attack.set_mode_targeted_least_likely,
            Y,
            model(X).scatter(1, Y[:, None], float("inf")).argmin(1),
        ),
    }
    for set_mode, given, aim in modes.values():
        set_mode()
        assert attack.targets.targeted
        after = nn.functional.cross_entropy(model(attack(X, given)), aim)
        assert after < nn.functional.cross_entropy(model(X), aim)
    attack.set_mode_default()
    assert nn.functional.cross_entropy(model(attack(X, Y)), Y) > nn.functional.cross_entropy(model(X), Y)


def test_random_targets_are_wrong_labels(model):
    drawn = torch.stack([torchattacks._draw_wrong(model, X, Y) for _ in range(50)])
    assert (drawn != Y).all()
    assert set(drawn.flatten().tolist()) == {0, 1, 2, 3}
    attack = torchattacks.FGSM(model)
    attack.set_mode_targeted_random()
    assert attack(X, Y).shape == X.shape


@pytest.mark.parametrize("make", [torchattacks.APGD, pytest.param(torchattacks.AutoAttack, marks=pytest.mark.slow)])
def test_searches_return_an_example_for_each_image_that_they_break(model, make):
    y = model(X[:3]).argmax(1)
    attack = make(model, eps=0.02)
    x_adv = attack(X[:3], y)
    name = attack.attack if isinstance(attack.attack, str) else ("apgd", attack.attack)
    result = uiat.evaluate(model, X[:3], y, threat=Linf(0.02), attacks=[name], selfchecks=False)
    changed = (x_adv != X[:3]).flatten(1).any(1)
    assert changed.tolist() == [bool(stage) for stage in result.broken_by]
    assert torch.equal(model(x_adv).argmax(1) != y, changed)
    assert (x_adv - X[:3]).abs().max() <= 0.02 + 1e-6


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda model: torchattacks.AutoAttack(model, version="standart"), "did you mean 'standard'"),
        (lambda model: torchattacks.APGD(model, norm="Linv"), "did you mean 'Linf'"),
        (lambda model: torchattacks.FGSM(model).set_mode_targeted_least_likely(0), "counts from 1"),
        (lambda model: torchattacks.PGD(model, steps=-1), "steps must be at least 0"),
        (lambda model: torchattacks.PGD(model)(X, Y.float()), "labels"),
    ],
)
def test_what_cannot_be_meant_is_refused(model, make, says):
    with pytest.raises(UserError, match=says):
        make(model)
