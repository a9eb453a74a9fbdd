"""Random draws: in the ball, of each point's own, and enough to break what lies close to the boundary."""

import pytest
import torch

from support.helpers import Binary, Passes, batch, cnn, interior, mlp
from uiat import L2, Linf
from uiat.attacks import Noise
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import Search, advance, join, select
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import L1

every_threat = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(2.0)], ids=lambda threat: threat.norm)


def run(attack, model, x, y, index=None):
    index = torch.arange(len(y)) if index is None else index
    with frozen(model):
        points = attack.start(model, x, y, keys(0, index), attempt=0)
        return advance(attack, model, points, 0, attack.iterations)


@every_threat
def test_it_breaks_what_is_close_and_nothing_that_is_far(threat):
    """On either side of one plane: a thousandth of the ball away, and three times its radius away."""
    w = torch.ones(64)
    reach = float(threat.epsilon) * {"Linf": 64, "L2": 8, "L1": 1}[threat.norm]
    x = (0.5 + torch.tensor([0.001, 3.0]) * reach / 64).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clamp(0, 1)
    model = Binary(w)
    model.forward = lambda x: torch.stack([s := x.flatten(1).sum(1) - 32, -s], dim=1)
    points = run(Noise(threat=threat, iterations=60), model, x, torch.tensor([0, 0]))
    assert points["broken"].tolist() == [True, False]
    assert (threat.length(points["x_adv"] - x) <= float(threat.epsilon) * (1 + 1e-5)).all()
    assert torch.equal(points["x_adv"][1], x[1])


@every_threat
def test_draws_are_a_points_own_and_differ(threat):
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.zeros(len(x), 2)

    x, y = interior(5), torch.zeros(5, dtype=torch.int64)
    attack = Noise(threat=threat, iterations=3)
    run(attack, Watched(), x, y)
    whole, seen = torch.stack(seen), []
    run(attack, Watched(), x[3:4], y[3:4], index=torch.tensor([3]))
    torch.testing.assert_close(torch.stack(seen)[:, 0], whole[:, 3])
    assert len((whole - x).flatten(2).flatten(0, 1).unique(dim=0)) == 15


def test_packing_changes_nothing():
    model, b, attack = mlp().eval(), batch(8), Noise(threat=Linf(0.3), iterations=4)
    points = attack.start(model, b.x, b.y, keys(0, torch.arange(8)), attempt=0)
    whole = packed = points
    for i in range(4):
        whole = attack.iterate(model, whole, i)
        packed = join(
            [attack.iterate(model, select(packed, part), i) for part in (torch.arange(3), torch.arange(3, 8))]
        )
    assert torch.equal(packed["broken"], whole["broken"])


def test_one_query_a_draw_and_no_gradient():
    model = Passes(cnn())
    run(Noise(threat=Linf(1e-6), iterations=7), model, batch().x, model.inner.eval()(batch().x).argmax(1))
    assert dict(model.forwards) == {"crafting": 7}
    assert not model.backwards


def test_it_is_a_search():
    attack = Noise(threat=Linf(0.1), iterations=10)
    assert isinstance(attack, Search)
    assert (attack.name, attack.iterations, [attack.attempts(k) for k in (1, 2)]) == ("noise", 10, [0, 1])
    with pytest.raises(UserError, match="iterations must be at least 1"):
        Noise(threat=Linf(0.1), iterations=0)
