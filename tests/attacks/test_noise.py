"""Random draws: in the ball, of each point's own, and enough to break what lies close to the boundary."""

import pytest
import torch

from support.helpers import Binary, interior
from support.searches import run
from uiat import L2, Linf
from uiat.attacks import Noise
from uiat.threat import L1

every_threat = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(2.0)], ids=lambda threat: threat.norm)


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
