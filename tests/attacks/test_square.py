"""The Square Attack: its schedule and its windows, what always holds, a linear model, and parity with the reference."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from support.balls import length, slack
from support.helpers import PIXELS, assert_untouched, interior, snapshot
from support.searches import Rowwise, start
from uiat import L2, Linf, UserError
from uiat.attacks import square
from uiat.attacks.random_numbers import keys, rekey
from uiat.attacks.search import Search, advance
from uiat.attacks.square import Square, window_side
from uiat.threat import L1

both = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=["Linf", "L2"])


def run(attack, model, x, y, **how):
    """One attempt; images leave when they break."""
    return advance(attack, model, start(attack, model, x, y, **how), 0, attack.iterations)


class Sure(nn.Module):
    """A linear model that is right whatever the attack does: the margin is 1000 - w.x for class 0."""

    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        score = x.flatten(1).double() @ self.w.double()
        return torch.stack([torch.full_like(score, 1000.0), score], dim=1)


# --- schedule and windows


def test_the_area_halves_at_the_paper_s_queries():
    sides = [window_side(i, 10_000, 0.8, (1_000, 1_000), odd=False) for i in range(10_000)]
    changes = [i for i in range(1, 10_000) if sides[i] != sides[i - 1]]
    assert changes == [11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert sorted(set(sides), reverse=True) == [round(1000 * math.sqrt(0.8 / 2**k)) for k in range(10)]


def test_the_schedule_is_stretched_to_the_budget():
    long = [window_side(i, 10_000, 0.8, (224, 224), odd=False) for i in range(0, 10_000, 10)]
    assert [window_side(i, 1_000, 0.8, (224, 224), odd=False) for i in range(1_000)] == long


@given(st.integers(0, 999), st.floats(0.001, 1.0), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_window_fits_into_the_image(i, p_init, h, w, odd):
    pixels = window_side(i, 1_000, p_init, (h, w), odd=odd)
    assert 1 <= pixels <= min(h, w)
    assert not odd or pixels % 2 == 1 or pixels == min(h, w)


def test_windows_lie_anywhere_in_the_image_alike_often():
    """8 - 3 + 1 = 6 positions down and 6 across, the last ones included."""
    x = interior(3_600)[:, :, :, :7]
    x_adv, _ = square._repaint_window(x, x, keys(0, torch.arange(3_600)), 3, Linf(0.1))
    changed = (x_adv != x)[:, 0]
    assert (changed.flatten(1).sum(1) == 9).all()
    for changes, positions in ((changed.any(2), 6), (changed.any(1), 5)):
        counts = changes.int().argmax(1).bincount(minlength=positions)
        assert len(counts) == positions
        expected = 3_600 / positions
        assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_linf_paints_each_channel_of_a_window_at_one_corner():
    threat, x = Linf(0.1), 0.2 + 0.6 * torch.rand(50, 3, 9, 9)
    x_adv = square._draw_stripes(x, keys(1, torch.arange(50)), threat)
    changed, corner = square._repaint_window(x, x_adv, keys(0, torch.arange(50)), 4, threat)
    assert changed.equal(torch.where(changed > x, x + 0.1, x - 0.1))
    windows = square._window(corner, 4, x).expand(-1, 3, -1)
    signs = (changed - x).sign().flatten(2)
    assert (signs.gather(2, windows) == signs.gather(2, windows[:, :, :1])).all()
    assert 0.3 < (signs.gather(2, windows[:, :, :1]) > 0).float().mean() < 0.7
    outside = torch.ones(50, 3, 81, dtype=torch.bool).scatter(2, windows, False)
    assert changed.flatten(2)[outside].equal(x_adv.flatten(2)[outside])


def test_linf_starts_from_vertical_stripes():
    x = interior(40)
    delta = start(Square(threat=Linf(0.1)), Sure(torch.ones(64)), x, torch.zeros(40).long())["x_adv"] - x
    assert (delta.sign() == delta[:, :, :1].sign()).all()
    assert abs(delta[:, 0, 0].sign().mean()) < 0.2  # 320 signs
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.1))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 32, 32), (1, 12, 17), (2, 1, 1), (1, 2, 9)])
def test_l2_starts_at_the_full_radius(shape):
    x = torch.full((5, *shape), 0.5)
    delta = square._draw_bumps(x, keys(0, torch.arange(5)), L2(0.5 if math.prod(shape) > 9 else 0.1)) - x
    epsilon = 0.5 if math.prod(shape) > 9 else 0.1
    torch.testing.assert_close(delta.flatten(1).norm(dim=1), torch.full((5,), epsilon))


def test_a_bump_is_equation_two():
    """5 x 5: the upper half has two rows, its centre at (1, 2), the lower three, its centre at (1, 2) of those."""
    value = [1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9]
    upper = torch.tensor([[2, 1, 1, 1, 2], [2, 1, 0, 1, 2]])
    lower = torch.tensor([[2, 1, 1, 1, 2], [2, 1, 0, 1, 2], [2, 1, 1, 1, 2]])
    up, down = (torch.tensor(value)[half] for half in (upper, lower))
    expected = torch.cat([up / up.norm(), -down / down.norm()]) / 2**0.5
    torch.testing.assert_close(square._bump(5, torch.zeros(1), 2), expected)


@pytest.mark.parametrize("pixels", range(1, 12))
def test_a_bump_has_length_one_and_two_halves(pixels):
    bump = square._bump(pixels, torch.zeros(1, dtype=torch.float64), 2)
    assert bump.norm().item() == pytest.approx(1)
    assert (bump[: pixels // 2] > 0).all()
    assert (bump[pixels // 2 :] < 0).all()


@pytest.mark.parametrize("pixels", [3, 5, 8])
def test_l2_gives_a_window_all_the_length_there_is(pixels):
    threat, x = L2(0.5), 0.4 + 0.2 * torch.rand(30, 3, 8, 8, dtype=torch.float64)
    x_adv = square._draw_bumps(x, keys(1, torch.arange(30)), threat)
    x_adv = x + (x_adv - x) * torch.linspace(0.0, 1, 30).view(-1, 1, 1, 1)  # as if clipping had cut some off
    after = square._move_mass(x, x_adv, keys(0, torch.arange(30)), pixels, threat)
    torch.testing.assert_close(threat.length(after - x), torch.full((30,), 0.5, dtype=torch.float64))
    changed = ((after - x_adv).abs() > 1e-9).any(1).flatten(1).sum(1)
    assert (changed <= 2 * pixels**2).all()
    assert (changed >= pixels**2).all()


def test_l2_follows_algorithm_three():
    """One example by hand, with plain slices."""
    threat, x = L2(0.5), 0.4 + 0.2 * torch.rand(1, 2, 8, 8, dtype=torch.float64)
    delta = 0.04 * torch.randn_like(x)
    key = keys(0, torch.tensor([5]))
    u = square.uniform(key, (7,))[0].double()
    top, left, top2, left2 = (int(v * 6) for v in u[:4])
    bump = square._bump(3, x, 2)
    bump = bump if u[4] < 0.5 else bump.t()
    expected, window = delta.clone(), (slice(top, top + 3), slice(left, left + 3))
    union = torch.zeros(8, 8, dtype=torch.bool)
    union[window] = union[top2 : top2 + 3, left2 : left2 + 3] = True
    expected[:, :, union] = 0
    for i in range(2):
        old = delta[0, i][window]
        new = (1 if u[5 + i] >= 0.5 else -1) * bump + old / old.norm()
        available = delta[0, i][union].square().sum() + (0.25 - delta.square().sum()).clamp_min(0) / 2
        expected[0, i][window] = new / new.norm() * available.sqrt()
    after = square._move_mass(x, x + delta, key, 3, threat)
    torch.testing.assert_close(after, threat.project(x + expected, x))


# --- L1, and a schedule that is not stretched


@pytest.mark.parametrize("pixels", range(1, 10))
def test_an_l1_bump_has_length_one_and_two_halves(pixels):
    bump = square._bump(pixels, torch.zeros(1, dtype=torch.float64), 1)
    assert bump.abs().sum().item() == pytest.approx(1)
    assert (bump[: pixels // 2] > 0).all()
    assert (bump[pixels // 2 :] < 0).all()


def test_an_l1_bump_falls_with_the_fourth_power():
    value = [1 + 1 / 16 + 1 / 81, 1 / 16 + 1 / 81, 1 / 81]
    upper = torch.tensor(value)[torch.tensor([[2, 1, 1, 1, 2], [2, 1, 0, 1, 2]])]
    torch.testing.assert_close(square._bump(5, torch.zeros(1), 1)[:2], upper / upper.sum() / 2)


@pytest.mark.parametrize("epsilon", [0.5, 10.0, 60.0])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 10, 10)])
def test_square_starts_and_stays_at_the_full_radius(epsilon, shape):
    threat, x = L1(epsilon), torch.full((6, *shape), 0.5, dtype=torch.float64)
    most = min(epsilon, 0.5 * x[0].numel())  # all there is of [0, 1]
    x_adv = square._draw_bumps(x, keys(0, torch.arange(6)), threat)
    assert (threat.length(x_adv - x) <= most * (1 + 1e-6)).all()
    assert (threat.length(x_adv - x) >= 0.7 * most).all()
    for i in range(5):
        x_adv = square._move_mass(x, x_adv, keys(i, torch.arange(6)), 3, threat)
        assert (threat.length(x_adv - x) <= most * (1 + 1e-6)).all()


def test_l1_follows_algorithm_three():
    """One example by hand, with plain slices."""
    threat, x = L1(2.0), 0.4 + 0.2 * torch.rand(1, 2, 8, 8, dtype=torch.float64)
    delta = 0.02 * torch.randn_like(x)
    key = keys(0, torch.tensor([5]))
    u = square.uniform(key, (7,))[0].double()
    top, left, top2, left2 = (int(v * 6) for v in u[:4])
    bump = square._bump(3, x, 1)
    bump = bump if u[4] < 0.5 else bump.t()
    expected, window = delta.clone(), (slice(top, top + 3), slice(left, left + 3))
    union = torch.zeros(8, 8, dtype=torch.bool)
    union[window] = union[top2 : top2 + 3, left2 : left2 + 3] = True
    expected[:, :, union] = 0
    for i in range(2):
        old = delta[0, i][window]
        new = (1 if u[5 + i] >= 0.5 else -1) * bump + old / old.abs().sum()
        available = delta[0, i][union].abs().sum() + (2.0 - delta.abs().sum()).clamp_min(0) / 2
        expected[0, i][window] = new / new.abs().sum() * available * 2
    after = square._move_mass(x, x + delta, key, 3, threat)
    torch.testing.assert_close(after, threat.project(x + expected, x))


@pytest.mark.parametrize(("stretched", "small"), [(True, 1), (False, 3)])
def test_a_schedule_that_is_not_stretched_stops_early(monkeypatch, stretched, small):
    seen, real = [], square.window_side
    monkeypatch.setattr(square, "window_side", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    attack = Square(threat=Linf(0.1), iterations=5_000, stretched=stretched)
    x = torch.rand(1, 1, 32, 32)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2))
    points = start(attack, model, x, torch.tensor([0]))
    attack.iterate(model, points, 4_999)
    assert seen == [small]


# --- a linear model


def test_linf_reaches_the_best_corner_of_a_linear_model_and_stops_at_the_edge_of_the_range():
    w, x = torch.randn(PIXELS), torch.cat([interior(2), torch.full((2, 1, 8, 8), 0.95)])
    points = run(Square(threat=Linf(0.1), iterations=1_200), Sure(w), x, torch.zeros(4).long())
    assert not points["broken"].any()
    assert points["x_adv"].equal((x + 0.1 * w.view(1, 1, 8, 8).sign()).clamp_max(1))
    torch.testing.assert_close(points["loss"], 1000 - points["x_adv"].flatten(1).double() @ w.double())


def test_l2_comes_near_the_end_of_the_radius_of_a_linear_model():
    """A window goes down in one half and up in the other, so random weights are the hard case for it."""
    w, x = torch.randn(PIXELS), interior(4)
    points = run(Square(threat=L2(0.5), iterations=800), Sure(w), x, torch.zeros(4).long())
    gain = (1000 - x.flatten(1).double() @ w.double()) - points["loss"]
    assert (gain > 0.7 * 0.5 * w.norm()).all()
    assert (gain <= 0.5 * w.norm() * (1 + 1e-5)).all()


class Steps(nn.Module):
    """Two classes told apart by the mean of the pixels, in coarse steps; nothing has a gradient."""

    def forward(self, x):
        score = (x.detach().mean(dim=(1, 2, 3)) * 200).round() - 100
        return torch.stack([-score, score], dim=1)


@both
def test_no_gradient_is_needed(threat):
    """Images at several distances from the boundary: the nearer ones break, the farther ones cannot."""
    reach = 0.1 if threat.norm == "Linf" else 0.5 / 8  # how far the mean can be moved
    grey = 0.5 + torch.tensor([0.1, 0.25, 1.2, 2.0]) * reach
    x, y = grey.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), torch.ones(4).long()
    with torch.inference_mode():
        points = run(Square(threat=threat, iterations=300), Steps(), x, y)
        assert points["broken"].tolist() == [True, True, False, False]
        assert (Steps()(points["x_adv"]).argmax(1) != y).equal(points["broken"])


# --- what always holds

cases = st.fixed_dictionaries(
    {
        "threat": st.sampled_from([Linf(0.001), Linf(8 / 255), Linf(0.3), L2(0.05), L2(0.5), L2(3.0)]),
        "p_init": st.sampled_from([0.05, 0.8, 1.0]),
        "loss": st.sampled_from(["margin", "ce"]),
    }
)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@given(cases, shapes, dtypes, st.integers(1, 5), st.integers(2, 4))
def test_always_in_the_ball_better_than_before_and_true(case, shape, dtype, n, classes):
    attack = Square(iterations=5, **case)
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(n)).round(decimals=1).to(dtype)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 8), nn.Tanh(), nn.Linear(8, classes)).to(dtype)
    y, image, before = model(x).argmax(1), x.clone(), snapshot(model)
    points = start(attack, model, x, y)
    for i in range(5):
        kept = {name: value.clone() for name, value in points.items()}
        after = attack.iterate(model, points, i)
        assert all(value.equal(kept[name]) for name, value in points.items())  # a new value, not a changed one
        assert after["x_adv"][kept["broken"]].equal(kept["x_adv"][kept["broken"]])
        assert (after["broken"] >= kept["broken"]).all()
        assert ((after["loss"] <= kept["loss"]) | after["broken"]).all()
        points = after
        x_adv = points["x_adv"]
        assert (x_adv.dtype, x_adv.shape, x_adv.requires_grad) == (dtype, x.shape, False)
        assert x_adv.isfinite().all()
        assert 0 <= x_adv.min() <= x_adv.max() <= 1
        distance = length(attack.threat, x_adv.double() - x.double())
        assert (distance <= float(attack.threat.epsilon) + slack(attack.threat, x)).all()
    assert x.equal(image)
    assert_untouched(model, before)
    if dtype != torch.bfloat16:
        assert (model(points["x_adv"]).argmax(1) != y).equal(points["broken"])


@both
def test_the_images_of_a_batch_do_not_share_their_draws(threat):
    x = interior(1).expand(12, -1, -1, -1)
    points = start(Square(threat=threat, iterations=5), Sure(torch.ones(64)), x, torch.zeros(12).long())
    assert len(points["x_adv"].flatten(1).unique(dim=0)) == 12
    draws = square.uniform(rekey(keys(0, torch.arange(12)), 1), (2,)).t()
    windows = square._window(square._corner(*draws, 2, x), 2, x)
    assert len(windows[:, 0, 0].unique()) > 6


@both
def test_how_images_lie_in_memory_plays_no_part(threat):
    model = Rowwise(shape=(3, 6, 7))
    x = torch.rand(6, 3, 6, 7)
    y = model(x).argmax(1)
    attack = Square(threat=threat, iterations=8)
    expected = run(attack, model, x, y)
    across = x.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (x.contiguous(memory_format=torch.channels_last), across, x.repeat_interleave(2, dim=3)[..., ::2]):
        points = run(attack, model, other, y)
        assert points["broken"].equal(expected["broken"])
        torch.testing.assert_close(points["x_adv"], expected["x_adv"])


@both
def test_black_and_white_images_and_the_largest_radius(threat):
    model, big = Rowwise(), Linf(0.999) if threat.norm == "Linf" else L2(15)
    x = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8), (torch.rand(1, 8, 8) > 0.5).float()])
    points = run(Square(threat=big, iterations=200), model, x, model(x).argmax(1))
    assert points["broken"].all()
    assert points["x_adv"].isfinite().all()


def test_a_break_in_the_start_is_kept():
    x, y = interior(3), torch.tensor([0, 1, 2])

    def model(x):
        return F.one_hot(torch.tensor([0, 0, 2]), 3).float()

    attack = Square(threat=Linf(0.1), iterations=5)
    first = start(attack, model, x, y)
    assert first["broken"].tolist() == [False, True, False]
    again = attack.iterate(model, first, 0)
    assert again["x_adv"].equal(first["x_adv"])


def test_a_break_is_kept_also_where_the_loss_does_not_fall():
    """log p_y rises from log 0.4 to log 0.45, and yet another class has overtaken."""
    answers = iter([[0.4, 0.3, 0.3], [0.45, 0.5, 0.05]])

    def model(x):
        return torch.tensor([next(answers)]).log()

    attack, x, y = Square(threat=Linf(0.1), iterations=5, loss="ce"), interior(1), torch.tensor([0])
    first = start(attack, model, x, y)
    points = attack.iterate(model, first, 0)
    assert points["broken"].item()
    assert not points["x_adv"].equal(first["x_adv"])
    assert points["loss"].item() == pytest.approx(math.log(0.45))


# --- settings


def test_it_is_a_search_of_the_papers_budget():
    attack = Square(threat=Linf("8/255"))
    assert isinstance(attack, Search)
    assert (attack.name, attack.iterations, attack.attempts(10), attack.p_init) == ("square", 5_000, 1, 0.8)
    assert Square(threat=Linf("8/255"), restarts=4).attempts(2) == 4


def other_norm():
    threat = L2(0.5)
    object.__setattr__(threat, "norm", "L7")
    return threat


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threat": 0.1}, "threat must be a threat model"),
        ({"threat": other_norm()}, "versions for Linf, L2 and L1, but none for L7"),
        ({"iterations": 0}, "iterations must be at least 1, but is 0"),
        ({"restarts": -1}, "restarts must be at least 1, but is -1"),
        ({"p_init": 0.0}, "p_init must be above 0"),
        ({"p_init": 1.5}, "p_init must be at most 1"),
        ({"p_init": float("nan")}, "p_init must be above 0"),
        ({"loss": "margn"}, "margin"),
    ],
)
def test_settings_out_of_range_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        Square(**{"threat": Linf(0.1), **changes})


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_image_is_refused():
    with pytest.raises(UserError, match=r"needs images \(B, C, H, W\), not a batch of shape \(2, 5\)"):
        start(Square(threat=Linf(0.1)), lambda x: x, torch.rand(2, 5), torch.tensor([0, 1]))


# --- parity with the reference


def reference(model, x, y, attack, *, seed, everywhere):
    """Which points stand under pyautoattack.

    Its windows never reach the last row and column: their position is drawn below h - s, where the paper's algorithms
    say 0 to h - s. On 8x8 images that weakens it a good deal. `everywhere` draws as the paper says.
    """
    module = pytest.importorskip("pyautoattack.square")
    other = module.SquareAttack(
        model, norm=attack.threat.norm, n_queries=attack.iterations, eps=attack.threat.epsilon, seed=seed, p_init=0.8
    )
    if everywhere:
        other.random_int = lambda low=0, high=1: torch.randint(low, high + 1, ())
    return model(other.perturb(x, y)).argmax(1) == y


@pytest.mark.parametrize("threat", [pytest.param(Linf(0.15), id="Linf"), pytest.param(L2(0.8), id="L2")])
def test_it_breaks_what_the_reference_breaks(digits, threat):
    attack = Square(threat=threat, iterations=250)
    with torch.inference_mode():
        robust = torch.stack([~run(attack, *digits, seed=seed)["broken"] for seed in range(2)])
    theirs, narrower = (
        torch.stack([reference(*digits, attack, seed=seed, everywhere=everywhere) for seed in range(2)])
        for everywhere in (True, False)
    )
    ours = robust.double().mean().item()
    assert 0.1 < ours < 0.9  # neither all nor nothing
    assert abs(ours - theirs.double().mean().item()) < 0.03
    assert ours < narrower.double().mean().item() + 0.02  # the one is weaker; a standard error is 0.015
    between = (robust[:, None] == theirs[None]).double().mean().item()
    within = (theirs[0] == theirs[1]).double().mean().item()
    assert between > within - 0.04


def test_the_schedule_is_the_references():
    module = pytest.importorskip("pyautoattack.square")
    other = module.SquareAttack(None, n_queries=5_000, eps=0.1)
    for i in range(0, 5_000, 3):
        assert window_side(i, 5_000, 0.8, (32, 32), odd=False) == max(round(math.sqrt(other.p_selection(i) * 1024)), 1)


def test_under_l1_it_breaks_what_the_reference_breaks(digits):
    module = pytest.importorskip("pyautoattack.square")
    model, x, y = digits
    ours, theirs = [], []
    for seed in range(4):
        other = module.SquareAttack(model, norm="L1", n_queries=100, eps=2.0, seed=seed, p_init=0.8)
        # Windows at the last row and column too, as the paper has them.
        other.random_int = lambda low=0, high=1: torch.randint(low, high + 1, ())
        theirs.append(model(other.perturb(x, y)).argmax(1) == y)
        ours.append(~run(Square(threat=L1(2.0), iterations=100), model, x, y, seed=seed)["broken"])
    mine, reference = torch.stack(ours).float(), torch.stack(theirs).float()
    assert 0.1 < reference.mean() < 0.9
    # From seed to seed the share varies by 0.035 on 150 images, so the difference of two means of four by 0.025.
    assert abs(mine.mean() - reference.mean()) < 0.06
    within = (reference[:2] == reference[2:]).float().mean()
    assert (mine == reference).float().mean() > within - 0.05
