"""Searches over whole sets: broken points leave, the rest is packed together, and the model confirms every break."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from uiat import L2, Linf
from uiat.attacks import APGD, FAB, Square
from uiat.evaluation.engine.search_runner import LONGEST, AdaptiveBatchSize, is_out_of_memory, rounds, search


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

    def start(self, model, points, attempt):
        return points

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
    assert len(rounds(5_000, longest=5_000)) < 25
    assert max(last - first for first, last in rounds(5_000)) == LONGEST


def test_broken_points_are_found_and_verified():
    model, (broken, x_adv) = run(Scripted(), [0.6, 0.7, 0.8, 0.9])
    assert broken.tolist() == [True, True, True, False]  # the search lies about the last one
    assert (model(x_adv).argmax(1) == 1).tolist() == broken.tolist()


def test_survivors_of_several_batches_are_packed_together():
    model, _ = run(Scripted(iterations=13), [0.6, 1.0, 0.6, 1.0])
    # Two batches of two to the round that ends at iteration 7; the two robust ones are then in one batch.
    assert model.seen[-1] != 1
    assert sum(model.seen) < 4 * 13


def test_only_what_is_robust_is_attacked_again():
    model, (broken, _) = run(Scripted(iterations=8, tries=3), [0.6, 0.7])
    once, _ = run(Scripted(iterations=8), [0.6, 0.7])
    assert broken.all()
    assert model.seen == once.seen


def test_progress_is_reported_after_each_round():
    calls = []
    run(
        replace(Scripted(iterations=8), tries=2),
        [0.6, 1.0],
        on_progress=lambda *words: calls.append(words),
    )
    assert calls[0] == (1, 16, 2)
    assert calls[-1] == (16, 16, 1)
    assert [done for done, *_ in calls] == sorted(done for done, *_ in calls)


class Hungry(nn.Module):
    """A model that runs out of memory with more than so many images."""

    def __init__(self, inner, most, *, words="DefaultCPUAllocator: can't allocate memory"):
        super().__init__()
        self.inner, self.most, self.words, self.refused = inner, most, words, 0

    def forward(self, x):
        if len(x) > self.most:
            self.refused += 1
            raise RuntimeError(self.words)
        return self.inner(x)


class Lying(nn.Module):
    """A model that says the contrary of the truth in so many calls after the first."""

    def __init__(self, inner, calls):
        super().__init__()
        self.inner, self.calls, self.most = inner, calls + 1, calls

    def forward(self, x):
        self.calls, lies = self.calls - 1, 0 < self.calls <= self.most
        return -self.inner(x) if lies else self.inner(x)


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3)).double().eval()


def images(model, n=30):
    x = torch.rand(n, 1, 4, 4, dtype=torch.float64)
    return x, model(x).argmax(1).detach(), torch.arange(n)


OPTIONS = {"num_classes": 3, "device": torch.device("cpu")}
SHORT = [
    APGD(threat=Linf(0.06), loss="ce", iterations=12),
    APGD(threat=Linf(0.06), loss="targeted-dlr", iterations=6),
    FAB(threat=L2(0.2), iterations=4),
    Square(threat=Linf(0.06), iterations=40),
]
every_search = pytest.mark.parametrize("attack", SHORT, ids=lambda attack: attack.name)


@every_search
def test_where_memory_runs_out_the_batch_is_halved_and_the_verdicts_are_the_same(attack):
    model = net()
    x, y, index = images(model)
    hungry, size = Hungry(model, 4), AdaptiveBatchSize(30)
    broken, x_adv = search(attack, hungry, x, y, index, batch_size=size, **OPTIONS)
    expected, examples = search(attack, model, x, y, index, **OPTIONS)
    assert 0 < expected.sum() < 30
    assert torch.equal(broken, expected)
    assert torch.allclose(x_adv, examples)
    assert (size.size, size.halved) == (4, True)
    assert hungry.refused == 3  # 30, 15, 8: never again


def test_what_is_no_lack_of_memory_is_passed_on_and_one_image_too_many_as_well():
    model = net()
    x, y, index = images(model, 3)
    for words, most in (("shapes differ", 2), ("CUDA out of memory", 0)):
        with pytest.raises(RuntimeError, match=words):
            search(SHORT[0], Hungry(model, most, words=words), x, y, index, **OPTIONS)
    assert is_out_of_memory(torch.OutOfMemoryError("HIP"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


@every_search
def test_a_fast_model_that_is_always_wrong_breaks_nothing_that_is_robust(attack):
    model = net()
    x, y, index = images(model)
    broken, x_adv = search(attack, model, x, y, index, fast=lambda x: -model(x), **OPTIONS)
    assert torch.equal(model(x_adv).argmax(1) != y, broken)
    assert (attack.threat.length(x_adv - x) <= float(attack.threat.epsilon) * (1 + 1e-6)).all()
    # A constant answer that is never y cannot be followed, and must not be believed.
    away = torch.eye(3, dtype=torch.float64)[(y[0] + 1) % 3]
    same = (y == y[0]).nonzero().flatten()
    broken, _ = search(
        attack, model, x[same], y[same], same, fast=lambda x: away + 0 * x.flatten(1)[:, :3], **OPTIONS | {"seed": 1}
    )
    assert broken.sum() <= len(same)


@pytest.mark.parametrize("attack", SHORT[:1] + SHORT[2:], ids=lambda attack: attack.name)
def test_points_that_a_fast_model_took_for_broken_are_attacked_further(attack):
    model = net()
    x, y, index = images(model)
    settings = replace(attack, iterations=4 * attack.iterations)
    unmisled, _ = search(settings, model, x, y, index, **OPTIONS)
    misled, x_adv = search(settings, model, x, y, index, fast=Lying(model, 6), **OPTIONS)
    assert torch.equal(model(x_adv).argmax(1) != y, misled)
    assert unmisled.sum() > 5
    assert misled.sum() >= 0.8 * unmisled.sum()  # it starts late, and from elsewhere


@every_search
def test_a_fast_model_that_agrees_changes_nothing(attack):
    model = net()
    x, y, index = images(model)
    one, other = (search(attack, model, x, y, index, fast=fast, **OPTIONS) for fast in (None, lambda x: model(x)))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


@every_search
def test_a_search_is_resumed_from_any_of_its_states_bit_for_bit(attack):
    model = net()
    x, y, index = images(model)
    states = []

    def keep(snapshot):
        tensors, meta = snapshot()
        states.append(({name: value.clone() for name, value in tensors.items()}, dict(meta)))

    whole = search(attack, model, x, y, index, batch_size=7, saver=keep, **OPTIONS)
    assert len(states) > 8
    for state in states[:: len(states) // 4]:
        again = search(attack, model, x, y, index, batch_size=7, saved=state, **OPTIONS)
        assert torch.equal(whole[0], again[0])
        assert torch.equal(whole[1], again[1])


def test_an_example_outside_of_the_ball_or_the_range_breaks_nothing():
    @dataclass(frozen=True)
    class Cheat(Scripted):
        threat: Linf = Linf(0.05)

    _, (broken, _) = run(Cheat(), [0.6, 0.52])  # both go to 0, far outside
    assert broken.tolist() == [False, False]


def test_no_images_are_no_trouble():
    model = net()
    x, y, index = images(model, 1)
    broken, x_adv = search(SHORT[0], model, x[:0], y[:0], index[:0], **OPTIONS)
    assert (broken.shape, x_adv.shape) == ((0,), (0, 1, 4, 4))
