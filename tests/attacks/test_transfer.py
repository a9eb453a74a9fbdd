"""Transfer: the second model gives the direction, the first one the verdict; neither is changed."""

import pytest
import torch
from torch import nn

from support.helpers import Binary, Passes, assert_untouched, batch, cnn, mlp, snapshot
from support.searches import run, start
from uiat import L2, Linf
from uiat.attacks import Transfer
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import L1

every_threat = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(2.0)], ids=lambda threat: threat.norm)


def test_the_first_model_judges():
    """The second model's direction is that of its own weights, and leads away from the first one's boundary."""
    model, x = Binary(torch.ones(64)), 0.5 + 0.01 * torch.rand(4, 1, 8, 8)
    y = model(x).argmax(1)
    assert run(Transfer(source=Binary(torch.ones(64)), threat=Linf(0.9)), model, x - 0.4, y * 0)["broken"].all()
    assert not run(Transfer(source=Binary(-torch.ones(64)), threat=Linf(0.9)), model, x, y)["broken"].any()


@every_threat
def test_what_is_broken_is_misclassified_in_the_ball_and_in_range(threat):
    source, model, b = cnn(seed=1), cnn(), batch()
    before = snapshot(source), snapshot(model)
    for attempt in range(2):
        points = run(Transfer(source=source, threat=threat, iterations=5), model, b.x, b.y, attempt=attempt)
        with frozen(model), torch.no_grad():
            wrong = model(points["x_adv"]).argmax(1) != b.y
        assert (wrong | ~points["broken"]).all()
        assert 0 <= points["x_adv"].min() <= points["x_adv"].max() <= 1
        assert (threat.length(points["x_adv"] - b.x) <= float(threat.epsilon) * (1 + 1e-5)).all()
    assert_untouched(source, before[0])
    assert_untouched(model, before[1])


def test_momentum_by_hand():
    """A third of the pixels turn: momentum of one keeps them going, none lets them turn at once."""
    source = Binary(torch.ones(4))
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    old = torch.tensor([0.0, 0.0, 0.0, -1.0]).view(1, 1, 2, 2)
    for momentum, last in ((1.0, -1.0), (0.0, 1.0)):
        attack = Transfer(source=source, threat=Linf(0.2), iterations=25, momentum=momentum)
        points = start(attack, source, x, y) | {"direction": old}
        moved = (attack.iterate(source, points, 0)["x_t"] - x).flatten()
        torch.testing.assert_close(moved, 0.02 * torch.tensor([1.0, 1.0, 1.0, last]))


def test_what_it_costs():
    source, model, b = Passes(mlp()), Passes(mlp()), batch()
    run(Transfer(source=source, threat=Linf(1e-6), iterations=6), model, b.x, model.inner.eval()(b.x).argmax(1))
    assert dict(source.forwards) == {"crafting": 7}  # the first to count classes
    assert dict(source.backwards) == {"crafting": 6}
    assert dict(model.forwards) == {"crafting": 7}
    assert not model.backwards


def test_models_of_other_classes_are_refused():
    with pytest.raises(UserError, match="transfer from tells 5 classes apart, and the model judged 4"):
        run(Transfer(source=mlp(classes=5), threat=Linf(0.1)), mlp(), batch().x, batch().y)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": "resnet18"}, "source must be a torch.nn.Module, not 'resnet18'"),
        ({"loss": "margn"}, "did you mean 'margin'"),
        ({"momentum": -1.0}, "momentum must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        Transfer(**{"source": nn.Identity(), "threat": Linf(0.1), **changes})
