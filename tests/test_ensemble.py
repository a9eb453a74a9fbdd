"""Searches over whole sets: points leave, the rest is packed together, and nothing counts that the model disputes."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from uiat.ensemble import rounds, search


class Sign(nn.Module):
    """Two classes by the sign of the mean; counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        mean = x.flatten(1).mean(1) - 0.5
        return torch.stack([mean, -mean], dim=1)


@dataclass(frozen=True)
class Scripted:
    """Breaks a point in the iteration that its pixel names in tenths; lies about those at 0.9."""

    name: str = "scripted"
    iterations: int = 20
    tries: int = 1

    def attempts(self, num_classes):
        return self.tries

    def start(self, model, x, y, key, *, attempt):
        return {"x": x, "y": y, "key": key, "x_adv": x, "broken": torch.zeros(len(y), dtype=torch.bool)}

    def iterate(self, model, points, i):
        model(points["x_adv"])
        tenths = (points["x"].flatten(1)[:, 0] * 10).round().long()
        now = (tenths == i) & ~points["broken"]
        lies = tenths == 9
        x_adv = torch.where((now & ~lies).view(-1, 1, 1, 1), 0.0, points["x_adv"])
        return points | {"x_adv": x_adv, "broken": points["broken"] | now}


def run(attack, pixels, **options):
    model, x = Sign(), torch.tensor(pixels).view(-1, 1, 1, 1)
    y = torch.zeros(len(x), dtype=torch.int64)
    index = torch.arange(len(x))
    settings = {"num_classes": 2, "device": torch.device("cpu"), "batch_size": 2} | options
    return model, search(attack, model, x, y, index, **settings)


def test_rounds_cover_every_iteration_once():
    for count in (1, 2, 7, 100, 5_000):
        steps = [i for first, last in rounds(count) for i in range(first, last)]
        assert steps == list(range(count))
    assert len(rounds(5_000)) < 25


def test_broken_points_are_found_and_verified():
    model, (broken, x_adv) = run(Scripted(), [0.6, 0.7, 0.8, 0.9])
    assert broken.tolist() == [True, True, True, False]  # the search lies about the last one
    assert (model(x_adv).argmax(1) == 1).tolist() == broken.tolist()


def test_survivors_of_several_batches_are_packed_together():
    model, _ = run(Scripted(iterations=13), [0.6, 1.0, 0.6, 1.0])
    # Two batches of two to the round that ends at iteration 7; the two that stand then share a batch.
    assert model.seen[-1] != 1
    assert sum(model.seen) < 4 * 13


def test_only_what_stands_is_attacked_again():
    model, (broken, _) = run(Scripted(iterations=8, tries=3), [0.6, 0.7])
    once, _ = run(Scripted(iterations=8), [0.6, 0.7])
    assert broken.all()
    assert model.seen == once.seen


def test_a_report_follows_each_round():
    told = []
    run(
        replace(Scripted(iterations=8), tries=2),
        [0.6, 1.0],
        report=lambda done, standing: told.append((done, standing)),
    )
    assert told[0] == (1, 2)
    assert told[-1][1] == 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)
