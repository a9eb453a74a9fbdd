"""Threat models: radii as they are written, projections, directions, random starts."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.balls import length, slack
from uiat.checks import number
from uiat.errors import UserError
from uiat.threat import L1, L1_FRACTION, L2, NORMS, Linf, parse, to_range

THREATS = [Linf("8/255"), Linf(0.3), L2(0.5), L2(3.0), L1(1.0), L1(5.0)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]

threats = st.one_of(
    st.floats(1e-3, 0.99).map(Linf),
    st.floats(1e-3, 15.9).map(L2),
    st.floats(1e-3, 300.0).map(L1),
)
shapes = st.sampled_from([(1, 1, 1, 1), (3, 1, 8, 8), (2, 3, 5, 7), (4, 10)])
dtypes = st.sampled_from(DTYPES)


# --- how radii are written


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.031", 0.031), ("1e-3", 1e-3), (0.3, 0.3), (0, 0.0), ("0/5", 0.0)],
)
def test_a_number_is_read(text, value):
    assert number(text) == value


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_fraction_is_the_nearest_float(numerator, denominator):
    assert number(f"{numerator}/{denominator}") == float(Fraction(numerator, denominator)) == numerator / denominator


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("eight", "must be a number or a fraction"),
        ("8/0", "must be a number or a fraction"),
        ("", "must be a number or a fraction"),
        ("__import__('os')", "must be a number or a fraction"),
        (None, "must be a number or a fraction"),
        ("1e400", "must be finite"),
        (10**400, "must be finite"),
        (float("nan"), "must be finite"),
        (float("inf"), "must be finite"),
        (-0.1, "must not be negative"),
        ("-8/255", "must not be negative"),
    ],
)
def test_what_is_not_a_number_is_refused(value, says):
    with pytest.raises(UserError, match=says) as caught:
        number(value, name="step_size")
    assert str(caught.value).startswith("step_size")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", [Linf, L2, L1])
@pytest.mark.parametrize(
    ("epsilon", "says"),
    [(0, "must be positive"), (-1, "negative"), (float("nan"), "finite"), ("x", "number"), (None, "number")],
)
def test_a_radius_that_is_none_is_refused(kind, epsilon, says):
    with pytest.raises(UserError, match=says):
        kind(epsilon)


@pytest.mark.parametrize(
    ("kind", "epsilon", "meant"),
    [
        (Linf, 8, '"8/255" (0.03137)'),
        (Linf, 1.0, '"1/255"'),
        (L2, 128, '"128/255"'),
        (L1, 2000, '"2000/255" (7.843)'),
    ],
)
def test_a_radius_in_pixels_is_refused_with_what_was_meant(kind, epsilon, meant):
    with pytest.raises(UserError) as caught:
        kind(epsilon)
    assert f"did you mean {meant}" in str(caught.value)
    assert "images are in [0, 1]" in str(caught.value)


def test_a_threat_model_is_a_value():
    assert Linf("8/255") == Linf(8 / 255) != L2(8 / 255)
    assert len({Linf("8/255"), Linf(8 / 255)}) == 1
    with pytest.raises(AttributeError):
        Linf(0.1).epsilon = 0.2


@pytest.mark.parametrize(
    ("text", "threat"),
    [
        ("Linf:8/255", Linf("8/255")),
        ("l2:0.5", L2(0.5)),
        ("LINF:0.3", Linf(0.3)),
        ("L1:12", L1(12.0)),
        ("l1:2000/255", L1(2000 / 255)),
    ],
)
def test_a_threat_model_is_read(text, threat):
    assert parse(text) == threat


@given(threats)
def test_a_threat_model_is_read_as_it_was_written(threat):
    assert parse(f"{threat.norm}:{threat.epsilon!r}") == threat


@pytest.mark.parametrize(("text", "says"), [("Linff:0.1", "did you mean 'Linf'"), ("Linf", "number"), ("", "norm")])
def test_a_threat_model_that_is_none_is_refused(text, says):
    with pytest.raises(UserError, match=says):
        parse(text)


def test_each_norm_names_its_class():
    assert {name: kind(0.1).norm for name, kind in NORMS.items()} == {name: name for name in NORMS}


# --- projections


@given(threats, shapes, dtypes, st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 1e3]))
def test_a_projection_is_in_the_ball_and_in_the_range(threat, shape, dtype, seed, size):
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=source).to(dtype)
    outside = x + size * torch.randn(shape, generator=source).to(dtype)
    x_adv = threat.project(outside, x)
    assert x_adv.dtype == dtype
    assert x_adv.shape == x.shape
    assert x_adv.isfinite().all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (length(threat, x_adv.double() - x.double()) <= float(threat.epsilon) + slack(threat, x)).all()


@given(threats, shapes, st.integers(0, 2**31))
def test_a_projection_changes_nothing_that_is_inside(threat, shape, seed):
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=source, dtype=torch.float64)
    step = torch.randn(shape, generator=source, dtype=torch.float64)
    inside = to_range(x + threat.steepest(step) * (0.999 * float(threat.epsilon)))
    torch.testing.assert_close(threat.project(inside, x), inside, rtol=0, atol=1e-12)


@pytest.mark.parametrize("threat", THREATS)
def test_a_projection_is_the_nearest_point_of_the_ball(threat):
    """Against the definition: no point of the ball, of many drawn at random, is closer to the perturbation."""
    delta = 2 * torch.randn(1, 12, dtype=torch.float64)
    nearest = threat.ball(delta)
    assert threat.length(nearest).item() == pytest.approx(float(threat.epsilon), rel=1e-9)
    x = torch.zeros(2000, 12, dtype=torch.float64)
    others = threat.noise(x)
    distance = torch.linalg.vector_norm(others - delta, dim=1)
    assert distance.min() >= torch.linalg.vector_norm(nearest - delta) - 1e-9


def test_an_l2_projection_keeps_the_direction():
    delta = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(L2(1.0).ball(delta), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def box_nearest(delta, x, epsilon):
    """The projection onto the L1 ball and [0, 1], one image (n,), by bisection on what every entry loses."""
    low, high = 0.0, delta.abs().max().item()
    shrunk = lambda loss: ((delta.abs() - loss).clamp_min(0) * delta.sign()).clamp(-x, 1 - x)  # noqa: E731
    if shrunk(0.0).abs().sum() <= epsilon:
        return x + shrunk(0.0)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if shrunk(middle).abs().sum() > epsilon else (low, middle)
    return x + shrunk(high)


@given(st.integers(0, 2**31), st.sampled_from([0.01, 0.5, 2.0, 100.0]), st.sampled_from([0.1, 1.0, 10.0]))
def test_an_l1_projection_is_the_nearest_point_of_the_ball_within_the_range(seed, epsilon, size):
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 20, generator=source, dtype=torch.float64)
    x[0], x[1] = x[0].round(), x[1].round(decimals=1)
    delta = size * torch.randn(4, 20, generator=source, dtype=torch.float64).round(decimals=1)  # ties
    expected = torch.stack([box_nearest(d, image, epsilon) for d, image in zip(delta, x, strict=True)])
    torch.testing.assert_close(L1(epsilon).project(x + delta, x), expected, rtol=0, atol=1e-9)


def test_an_l1_projection_minds_the_box():
    """Ball and range one after the other would stop at a length of 0.75: the first pixel cannot use its half."""
    x, outside = torch.tensor([[0.75, 0.5]]), torch.tensor([[1.75, 1.5]])
    torch.testing.assert_close(L1(1.0).ball(outside - x), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(L1(0.6).project(outside, x), torch.tensor([[1.0, 0.85]]))


def test_projecting_costs_no_entry_that_is_zero():
    delta = torch.tensor([[3.0, 0.0, -1.0, 0.0]])
    torch.testing.assert_close(L1(1.0).ball(delta), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert torch.equal(L1(1.0).ball(torch.zeros(2, 3)), torch.zeros(2, 3))


# --- directions


@pytest.mark.parametrize("threat", [threat for threat in THREATS if threat.norm != "L1"])
def test_the_steepest_direction_rises_most(threat):
    """A linear function's best rise over the unit ball is the dual norm of its gradient (Hoelder)."""
    gradient = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    direction = threat.steepest(gradient)
    torch.testing.assert_close(threat.length(direction), torch.ones(5, dtype=torch.float64))
    rise = (direction * gradient).flatten(1).sum(1)
    dual = gradient.flatten(1).abs().sum(1) if isinstance(threat, Linf) else gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(rise, dual)


def test_an_l1_step_is_shared_by_the_largest_entries():
    """Of 100 entries the largest five, a fifth each; zeros take no share."""
    assert L1_FRACTION == 0.05
    gradient = torch.arange(100.0).view(1, 1, 10, 10) - 97
    expected = torch.zeros(100)
    expected[:5] = -0.2
    assert torch.equal(L1(1.0).steepest(gradient).flatten(), expected)
    lonely = torch.zeros(1, 100)
    lonely[0, 7] = 1e-30
    assert torch.equal(L1(1.0).steepest(lonely), (lonely > 0).float())
    assert L1(1.0).steepest(torch.ones(2, 3)).abs().sum(1).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-20, 1e-8, 1.0, 1e25])
def test_the_steepest_direction_of_a_saturated_loss_is_no_longer_than_one(size):
    """The squares of a confident model's gradients underflow in single precision; the step must not explode."""
    direction = L2(0.5).steepest(torch.full((1, 64), size))
    bound = 1 + 1e-5
    assert direction.norm() <= bound
    if size > 1e-37:
        torch.testing.assert_close(direction, torch.full((1, 64), 1 / 8))


@pytest.mark.parametrize("threat", THREATS)
def test_without_a_gradient_there_is_no_direction(threat):
    assert torch.equal(threat.steepest(torch.zeros(2, 3)), torch.zeros(2, 3))


# --- random starts


@given(threats, shapes, dtypes, st.integers(0, 2**31))
def test_noise_is_in_the_ball(threat, shape, dtype, seed):
    x = torch.zeros(shape, dtype=dtype)
    noise = threat.noise(x, generator=torch.Generator().manual_seed(seed))
    assert noise.shape == x.shape
    assert noise.dtype == dtype
    assert (length(threat, noise) <= float(threat.epsilon) + slack(threat, x)).all()
    assert torch.equal(noise, threat.noise(x, generator=torch.Generator().manual_seed(seed)))


def test_linf_noise_is_uniform():
    noise = Linf(0.5).noise(torch.zeros(100, 100)).flatten()
    assert noise.mean().item() == pytest.approx(0, abs=0.01)  # 3.5 standard errors of 0.5 / sqrt(3) / 100
    assert noise.abs().mean().item() == pytest.approx(0.25, abs=0.005)


def test_l2_noise_is_uniform_in_the_ball():
    """In d dimensions a share r^d of a ball lies within r of its centre."""
    length = L2(0.5).length(L2(0.5).noise(torch.zeros(4000, 3)))
    assert (length / 0.5).pow(3).mean().item() == pytest.approx(0.5, abs=0.02)  # standard error 0.0046
    assert (length < 0.25).float().mean().item() == pytest.approx(1 / 8, abs=0.02)


def test_l1_noise_is_uniform_in_the_ball():
    """The simplex of the sizes is uniform: in three dimensions a size has mean epsilon / 4, and signs are fair."""
    noise = L1(0.5).noise(torch.zeros(4000, 3))
    share = L1(0.5).length(noise) / 0.5
    assert share.pow(3).mean().item() == pytest.approx(0.5, abs=0.02)
    assert (share < 0.5).float().mean().item() == pytest.approx(1 / 8, abs=0.02)
    assert noise.abs().mean().item() == pytest.approx(0.125, abs=0.004)
    assert noise.sign().mean().item() == pytest.approx(0, abs=0.03)
