"""Inverse adversaries: closed forms, what always holds, the universal update, its epochs, its start, its fields."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.balls import length, slack
from support.helpers import Binary, Blocks, Failing, assert_untouched, batch, cnn, eval_loss, interior, snapshot
from uiat import L2, PGD, UIAT, GeneratorInverse, InstanceInverse, Linf, UniversalInverse, UniversalPerturbation
from uiat.errors import UserError
from uiat.inverse import InverseState, apply_universal
from uiat.models.modes import frozen

RADIUS = 0.05
LINF, TWO = Linf(0.1), L2(0.5)
ABSENT, PRESENT = torch.tensor([1, 3]), torch.tensor([0, 2, 0, 2, 2, 0])


def universal(**fields: object) -> UniversalInverse:
    return UniversalInverse(**{"radius": RADIUS, "step_size": 0.02, **fields})  # type: ignore[arg-type]


def state_of(inverse: UniversalInverse, *, threat=LINF, classes: int = 4, momentum: bool = False) -> InverseState:
    z = inverse.initial(classes, (1, 8, 8), threat)
    return InverseState(z, gradient_momentum=momentum, rows=0, num_classes=classes)


def find(inverse, model, x, y, *, state=None, x_adv=None, threat=LINF, epoch=0):
    state = InverseState(None, gradient_momentum=False, rows=0, num_classes=4) if state is None else state
    with frozen(model):
        return inverse.find(model, x, x if x_adv is None else x_adv, y, state=state, threat=threat, epoch=epoch)


# --- closed form on linear models


def test_the_instance_inverse_is_the_opposite_corner():
    w = torch.randn(64)
    x, y = interior(4), torch.tensor([0, 1, 0, 1])
    rising = torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1) * w.view(1, 1, 8, 8)
    inverse = InstanceInverse(radius=RADIUS, step_size=0.02, steps=5)
    assert torch.equal(find(inverse, Binary(w), x, y).x_inv, x - RADIUS * rising.sign())
    unit = rising / w.norm()
    x_inv = find(inverse, Binary(w), x, y, threat=TWO).x_inv
    torch.testing.assert_close(x_inv, x - RADIUS * unit, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.3])
@pytest.mark.parametrize("start", ["zeros", "uniform", "sign"])
def test_the_universal_perturbation_is_minus_epsilon_sign_w_exactly(steps, momentum, start):
    """z_y = -epsilon_inv sign(w_y): on disjoint supports the gradient's sign is the same for every image of a class."""
    model = Blocks(4)
    inverse = universal(steps=steps, gradient_momentum=momentum, start=start)
    state = state_of(inverse, momentum=momentum > 0)
    for seed in range(6):
        torch.manual_seed(seed)
        find(inverse, model, interior(12), torch.arange(12) % 4, state=state)
    assert torch.equal(state.z, (-RADIUS * model.w.sign()).view(4, 1, 8, 8))


def test_two_classes_get_opposite_perturbations():
    w = torch.randn(64)
    state, inverse = state_of(universal(), classes=2), universal()
    for _ in range(4):
        find(inverse, Binary(w), interior(6), torch.arange(6) % 2, state=state)
    assert torch.equal(state.z, RADIUS * torch.stack([-w.sign(), w.sign()]).view(2, 1, 8, 8))


def test_the_universal_perturbation_of_an_l2_ball():
    w = torch.randn(64)
    state, inverse = state_of(universal(), threat=TWO, classes=2), universal()
    for _ in range(4):
        find(inverse, Binary(w), interior(6), torch.arange(6) % 2, state=state, threat=TWO)
    expected = RADIUS * torch.stack([-w, w]).view(2, 1, 8, 8) / w.norm()
    torch.testing.assert_close(state.z, expected, rtol=0, atol=1e-6)


# --- what always holds


@given(
    st.sampled_from([Linf(0.1), Linf(0.02), L2(0.5), L2(3.0)]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from(["universal", "instance", "generator"]),
    st.sampled_from(["none", "feature", "feature-repulsion", "logit"]),
    st.sampled_from([(1, 8, 8), (3, 9, 11)]),
    st.booleans(),
)
def test_always_in_the_ball_finite_and_the_model_untouched(threat, dtype, kind, regulariser, shape, training):
    model = cnn(image_shape=shape).to(dtype).train(training)
    b = batch(6, image_shape=shape)
    x = b.x.to(dtype)
    x_adv = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    if kind == "universal":
        inverse = universal(regulariser=regulariser, regulariser_weight=0.1, step_size=0.5, steps=2)
        z = inverse.initial(4, shape, threat).to(dtype)
    else:
        inverse = InstanceInverse(radius=RADIUS, step_size=0.5, steps=2, regulariser=regulariser)
        z = None
    generator = None
    if kind == "generator":
        inverse = GeneratorInverse(radius=RADIUS, width=3, regulariser=regulariser)
        generator = inverse.make_generator(4, shape, threat)
        generator.last.weight.normal_(std=10)  # far out, where its bound alone keeps it in the ball
    state = InverseState(z, gradient_momentum=False, rows=0, num_classes=4, generator=generator)
    before = snapshot(model)
    x_inv = find(inverse, model, x, b.y, state=state, x_adv=x_adv, threat=threat).x_inv
    assert_untouched(model, before)
    assert (x_inv.dtype, x_inv.shape, x_inv.requires_grad) == (dtype, x.shape, False)
    assert x_inv.isfinite().all()
    assert 0 <= x_inv.min() <= x_inv.max() <= 1
    ball = replace(threat, epsilon=RADIUS)
    # Adding x rounds once more than the projection of z, which is what `slack` counts for.
    assert (length(ball, x_inv.double() - x.double()) <= RADIUS + slack(ball, x)).all()
    if z is not None:
        assert (length(ball, state.z) <= RADIUS + slack(ball, x)).all()


@pytest.mark.parametrize("threat", [LINF, TWO])
@pytest.mark.parametrize(
    "inverse",
    [
        InstanceInverse(radius=RADIUS, step_size=0.02),
        universal(steps=5),
        GeneratorInverse(radius=RADIUS, learning_rate=0.01),
    ],
)
def test_the_loss_is_lowered(threat, inverse):
    model, b = cnn(), batch(16)
    state = state_of(inverse, threat=threat) if isinstance(inverse, UniversalInverse) else None
    if isinstance(inverse, GeneratorInverse):
        generator = inverse.make_generator(4, (1, 8, 8), threat)
        state = InverseState(None, gradient_momentum=False, rows=0, num_classes=4, generator=generator)
        for _ in range(10):
            find(inverse, model, b.x, b.y, state=state, threat=threat)
    x_inv = find(inverse, model, b.x, b.y, state=state, threat=threat).x_inv
    before, after = eval_loss(model, b.x, b.y), eval_loss(model, x_inv, b.y)
    assert after.mean() < before.mean()
    if state is None:
        assert (after < before).all()


@pytest.mark.parametrize("inverse", [InstanceInverse(), universal(), universal(regulariser="logit")])
def test_the_model_and_z_are_untouched_after_an_exception(inverse):
    model, b = Failing(cnn(), at=1), batch()
    state = state_of(universal(start="uniform"))
    before, z = snapshot(model), state.z.clone()
    with pytest.raises(RuntimeError, match="boom"):
        find(inverse, model, b.x, b.y, state=state)
    assert_untouched(model, before)
    assert torch.equal(state.z, z)


# --- the universal update


def reference_update(z, gradient, y, *, step, radius, momentum=0.0, g=None):
    """The update of METHOD's section 4 written as loops over classes."""
    z = z.clone()
    for c in range(len(z)):
        rows = [i for i in range(len(y)) if int(y[i]) == c]
        if not rows:
            continue
        mean = sum(gradient[i] for i in rows) / len(rows)
        if g is not None:
            g[c] = momentum * g[c] + (1 - momentum) * mean
            mean = g[c]
        z[c] = (z[c] - step * mean.sign()).clamp(-radius, radius)
    return z


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_update_is_the_papers_loop_over_classes(momentum):
    inverse = universal(gradient_momentum=momentum)
    state = state_of(inverse, momentum=momentum > 0)
    z, g = state.z.clone(), torch.zeros_like(state.z) if momentum else None
    for seed in range(8):
        source = torch.Generator().manual_seed(seed)
        gradient = torch.randn(7, 1, 8, 8, generator=source)
        y = torch.randint(3, (7,), generator=source)  # class 3 never comes, the others not always
        inverse.update(state, gradient, y, LINF)
        z = reference_update(z, gradient, y, step=0.02, radius=RADIUS, momentum=momentum, g=g)
        torch.testing.assert_close(state.z, z, rtol=0, atol=1e-7)
    assert torch.equal(state.z[3], torch.zeros(1, 8, 8))
    if momentum:
        torch.testing.assert_close(state.g, g)


def test_gradient_momentum_makes_a_difference():
    """One opposite gradient after several alike: without momentum z turns back, with it z goes on."""
    gradients = [torch.ones(1, 1, 8, 8)] * 4 + [-0.5 * torch.ones(1, 1, 8, 8)]
    end = {}
    for momentum in (0.0, 0.9):
        inverse = universal(gradient_momentum=momentum, step_size=0.005)
        state = state_of(inverse, momentum=momentum > 0)
        for gradient in gradients:
            inverse.update(state, gradient, torch.tensor([0]), LINF)
        end[momentum] = state.z[0].mean().item()
    assert end == {0.0: pytest.approx(-0.015), 0.9: pytest.approx(-0.025)}


@pytest.mark.parametrize("threat", [LINF, TWO])
@pytest.mark.parametrize("momentum", [0.0, 0.3])
def test_absent_classes_do_not_change_by_a_bit(threat, momentum):
    """Also not by rounding: a perturbation on the surface of an L2 ball, projected again, often moves by one bit."""
    inverse = universal(gradient_momentum=momentum)
    for seed in range(20):
        torch.manual_seed(seed)
        z = replace(threat, epsilon=RADIUS).ball(torch.randn(4, 1, 8, 8))
        state = InverseState(z.clone(), gradient_momentum=momentum > 0, rows=0, num_classes=4)
        if momentum:
            state.g.normal_()
        inverse.update(state, torch.randn(6, 1, 8, 8), PRESENT, threat)
        assert torch.equal(state.z[ABSENT], z[ABSENT])
        assert not torch.equal(state.z[0], z[0])


def test_gradients_count_in_proportion_within_a_class():
    """The mean of gradients, not of their signs: one strong image outvotes two weak ones."""
    gradient = torch.tensor([3.0, -1.0, -1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    inverse, state = universal(), state_of(universal())
    inverse.update(state, gradient, torch.zeros(3, dtype=torch.int64), LINF)
    torch.testing.assert_close(state.z[0], torch.full((1, 8, 8), -0.02))


def test_the_logits_are_those_of_the_forward_pass_that_gave_the_gradient():
    model, b = cnn(), batch()
    inverse, state = universal(start="sign"), state_of(universal(start="sign"))
    z = state.z.clone()
    found = find(inverse, model, b.x, b.y, state=state)
    with frozen(model), torch.no_grad():
        expected = model(apply_universal(b.x, b.y, z))
    torch.testing.assert_close(found.logits, expected)
    assert torch.equal(found.x_inv, apply_universal(b.x, b.y, state.z))
    assert not torch.equal(state.z, z)


# --- one-off


def test_one_off_refines_in_its_epoch_and_never_again():
    model, b = cnn(), batch()
    inverse = universal(epoch=2)
    state = state_of(inverse)
    assert [inverse.active(e) for e in range(5)] == [False, False, True, True, True]
    assert [inverse.refines(e) for e in range(5)] == [False, False, True, False, False]
    find(inverse, model, b.x, b.y, state=state, epoch=2)
    z = state.z.clone()
    assert z.abs().max() > 0
    for epoch in (3, 4, 100):
        found = find(inverse, model, b.x, b.y, state=state, epoch=epoch)
        assert torch.equal(state.z, z)
        assert torch.equal(found.x_inv, apply_universal(b.x, b.y, z))
        assert found.logits is None


# --- how z begins


@pytest.mark.parametrize("threat", [LINF, TWO])
def test_each_start_is_in_the_ball(threat):
    ball = replace(threat, epsilon=RADIUS)
    zeros, uniform, sign = (universal(start=s).initial(10, (1, 8, 8), threat) for s in ("zeros", "uniform", "sign"))
    assert not zeros.any()
    assert (ball.length(uniform) <= RADIUS * (1 + 1e-6)).all()
    torch.testing.assert_close(ball.length(sign), torch.full((10,), RADIUS))
    assert sign.abs().max() - sign.abs().min() < 1e-7  # a corner: all entries equally far
    assert 0.4 < (sign > 0).float().mean() < 0.6


def test_a_saved_perturbation_warm_starts_another_run(tmp_path):
    z = Linf(RADIUS).noise(torch.zeros(4, 1, 8, 8))
    UniversalPerturbation(z, Linf(RADIUS)).save(tmp_path / "inverse.safetensors")
    for where in (tmp_path, tmp_path / "inverse.safetensors"):
        assert torch.equal(universal(warm_start=str(where)).initial(4, (1, 8, 8), LINF), z)
    smaller = universal(radius=RADIUS / 4, warm_start=str(tmp_path)).initial(4, (1, 8, 8), LINF)
    assert torch.equal(smaller, z.clamp(-RADIUS / 4, RADIUS / 4))
    objective = UIAT(inverse=universal(warm_start=str(tmp_path)))
    assert torch.equal(objective.init(num_classes=4, image_shape=(1, 8, 8)).z, z)


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (4, 3, 8, 8), (4, 1, 9, 8)])
def test_a_warm_start_of_another_shape_is_refused(tmp_path, shape):
    UniversalPerturbation(torch.zeros(shape), LINF).save(tmp_path / "z.safetensors")
    with pytest.raises(UserError, match=r"warm_start has shape .* needs \(4, 1, 8, 8\)"):
        universal(warm_start=str(tmp_path / "z.safetensors")).initial(4, (1, 8, 8), LINF)


# --- fields


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (InstanceInverse, {"radius": 0}, "inverse.radius must be positive"),
        (InstanceInverse, {"radius": -1}, "inverse.radius must not be negative"),
        (InstanceInverse, {"step_size": 0}, "inverse.step_size must be positive"),
        (InstanceInverse, {"steps": 0}, "steps must be at least 1"),
        (UniversalInverse, {"radius": float("nan")}, "radius must be finite"),
        (UniversalInverse, {"step_size": "fast"}, "inverse.step_size must be a number"),
        (UniversalInverse, {"steps": 0}, "steps must be at least 1"),
        (UniversalInverse, {"epoch": -1}, "epoch must be at least 0"),
        (UniversalInverse, {"gradient_momentum": 1.0}, r"gradient_momentum must be at most 0.9999"),
        (UniversalInverse, {"gradient_momentum": -0.1}, "gradient_momentum"),
        (GeneratorInverse, {"radius": 0}, "inverse.radius must be positive"),
        (GeneratorInverse, {"width": 0}, "width must be at least 1"),
        (GeneratorInverse, {"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_fields_out_of_range_are_refused(kind, fields, says):
    with pytest.raises(UserError, match=says):
        kind(**fields)


@pytest.mark.parametrize("kind", [InstanceInverse, UniversalInverse, GeneratorInverse])
@pytest.mark.parametrize(("threat", "radius"), [(Linf(0.1), 4), (L2(0.5), 128)])
def test_a_radius_in_pixels_is_refused_before_the_run_begins(kind, threat, radius):
    with pytest.raises(UserError, match=rf'inverse.radius {radius} is as large .* did you mean "{radius}/255"'):
        UIAT(attack=PGD(threat=threat), inverse=kind(radius=radius))


def test_fractions_become_floats():
    assert InstanceInverse().radius == UniversalInverse().radius == 4 / 255
    assert math.isclose(UniversalInverse(step_size="1/255").step_size, 1 / 255)
