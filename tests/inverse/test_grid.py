"""Universal perturbations on a grid and in narrow types: the step by another formula, the ball, rounding, resuming."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import uiat
from support import tiny
from uiat import L1, L2, UIAT, Linf, UniversalInverse, UniversalPerturbation, load_inverse
from uiat.errors import UserError
from uiat.inverse import InverseState
from uiat.inverse.grid import round_inwards, sum_cells, upsample
from uiat.inverse.universal import INVERSE_FILE
from uiat.system.manifest import write_recorded_tensors

THREATS = [Linf(0.1), L2(0.5), L1(4.0)]
RADII = {"Linf": 0.05, "L2": 0.3, "L1": 2.0}
NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def universal(threat, **fields: Any) -> UniversalInverse:
    radius = RADII[threat.norm]
    return UniversalInverse(**{"radius": radius, "step_size": 0.4 * radius, **fields})


def state_of(inverse, *, threat=THREATS[0], classes: int = 3) -> InverseState:
    z, momentum = inverse.initial(classes, (2, 8, 12), threat), inverse.gradient_momentum > 0
    return InverseState(z, gradient_momentum=momentum, rows=0, num_classes=classes)


def enlarged(z: torch.Tensor, n: int) -> torch.Tensor:
    return F.interpolate(z.double(), scale_factor=n, mode="nearest")


def test_the_gradient_of_a_cell_is_autograds():
    x, z = torch.rand(5, 2, 8, 12).double(), torch.rand(5, 2, 2, 3).double().requires_grad_()
    x_inv = x + enlarged(z, 4)
    (x_inv.sin() * x).sum().backward()
    torch.testing.assert_close(sum_cells(x_inv.detach().cos() * x, 4), z.grad)
    assert torch.equal(upsample(z, 4), enlarged(z, 4))


@pytest.mark.parametrize("threat", THREATS[:2], ids=lambda t: t.norm)
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("classes", [3, 40])  # more than images, too
def test_steps_are_those_of_a_class_by_class_loop_on_upsampled_images(threat, n, classes):
    """Each class alone, in float64 and at full size: descend where the linearised loss falls most, then project."""
    inverse, radius, step = universal(threat, resolution=f"1/{n}"), RADII[threat.norm], 0.4 * RADII[threat.norm]
    state = state_of(inverse, threat=threat, classes=classes)
    expected = torch.zeros(classes, 2, 8, 12).double()
    for seed in range(5):
        source = torch.Generator().manual_seed(seed)
        gradient, y = torch.randn(7, 2, 8, 12, generator=source), torch.randint(2, (7,), generator=source) * 2
        inverse.update(state, gradient, y, threat)
        for c in set(y.tolist()):
            # On perturbations that are constant on cells, a gradient acts through its means over cells alone.
            g = enlarged(F.avg_pool2d(gradient[y == c].double().mean(dim=0, keepdim=True), n), n)[0]
            if threat.norm == "Linf":
                expected[c] = (expected[c] - step * g.sign()).clamp(-radius, radius)
            else:
                moved = expected[c] - step * g / g.norm()
                expected[c] = moved * min(1.0, radius / float(moved.norm()))
    torch.testing.assert_close(enlarged(state.z, n), expected, rtol=0, atol=1e-6)
    assert not state.z[1].any()


def test_more_classes_than_images_change_no_momentum_and_no_class_that_is_absent():
    """A row an image against a row a class: the same z and g, to rounding; what is absent does not change by a bit."""
    inverse, states = universal(THREATS[1], gradient_momentum=0.5, resolution="1/2"), {}
    y = torch.tensor([0, 2, 2, 0, 2])
    for classes in (4, 9):
        states[classes] = state = state_of(inverse, threat=THREATS[1], classes=classes)
        state.z[:4] = torch.linspace(-0.01, 0.01, state.z[:4].numel()).view_as(state.z[:4])
        before = state.z.clone()
        for seed in range(3):
            gradient = torch.randn(5, 2, 8, 12, generator=torch.Generator().manual_seed(seed))
            inverse.update(state, gradient, y, THREATS[1])
        absent = [c for c in range(classes) if c not in (0, 2)]
        assert torch.equal(state.z[absent], before[absent])
        assert not state.g[absent].any()
    for name in ("z", "g"):
        torch.testing.assert_close(getattr(states[9], name)[:4], getattr(states[4], name))


@pytest.mark.parametrize("storage", NARROW)
@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.norm)
@pytest.mark.parametrize("n", [1, 4])
def test_z_is_in_the_ball_of_the_images_to_the_last_bit(storage, threat, n):
    inverse = universal(threat, resolution=1 / n, storage=storage, start="sign")
    state, source, longest = state_of(inverse, threat=threat), torch.Generator().manual_seed(0), 0.0
    for _ in range(12):
        assert state.z.dtype == NARROW[storage]
        inverse.update(state, torch.randn(6, 2, 8, 12, generator=source), torch.arange(6) % 3, threat)
        lengths = threat.length(enlarged(state.z, n)) / RADII[threat.norm]
        assert (lengths <= 1 + 1e-6).all()  # the projection's own rounding, in float32
        longest = max(longest, float(lengths.max()))
    assert longest > 0.98


def test_rounding_goes_to_the_next_number_inwards():
    source = torch.Generator().manual_seed(0)
    v = torch.randn(4000, generator=source) * 10 ** torch.empty(4000).uniform_(-9, 0, generator=source)
    v[:4] = torch.tensor([0.0, -0.0, 0.015625, -4 / 255])
    bits = (v.numpy().view(np.int32) & np.int32(-65536)).view(np.float32)  # bfloat16 is the upper half of float32
    assert np.array_equal(round_inwards(v, torch.bfloat16).float().numpy(), bits)
    half = round_inwards(v, torch.float16).numpy()  # subnormal ones among them
    assert (np.abs(half.astype(np.float32)) <= v.abs().numpy()).all()
    outwards = np.nextafter(half, np.copysign(np.float16(np.inf), v.numpy()).astype(np.float16)).astype(np.float32)
    assert (np.abs(outwards) > v.abs().numpy()).all()
    assert torch.equal(round_inwards(v, torch.float32), v)


@pytest.mark.parametrize(("storage", "fraction"), [("bfloat16", 1 / 32), ("float16", 1 / 256)])
def test_the_shortest_step_allowed_keeps_three_quarters_of_its_length_everywhere(storage, fraction):
    step = 0.05 * fraction
    inverse = universal(THREATS[0], storage=storage, step_size=step * 1.0001)
    with pytest.raises(
        UserError, match=f"step_size .* could vanish in rounding: stored as {storage}, .*1/{1 / fraction:.0f} of"
    ):
        universal(THREATS[0], storage=storage, step_size=step * 0.999)
    assert universal(THREATS[0], step_size=step / 100).storage == "float32"
    for sign in (1.0, -1.0):
        state = state_of(inverse)
        state.z.copy_(round_inwards(torch.linspace(-0.048, 0.048, state.z.numel()).view_as(state.z), state.z.dtype))
        before = state.z.float()
        inverse.update(state, torch.full((3, 2, 8, 12), sign), torch.arange(3), THREATS[0])
        moved = sign * (before - state.z.float())
        assert 0.75 * step < moved.min() <= moved.max() < 1.26 * step


def test_a_run_that_is_stopped_goes_on_bit_for_bit_and_its_z_is_used_at_the_size_of_the_images(tmp_path):
    inverse = UniversalInverse(
        radius=0.05, step_size=0.0125, resolution="1/2", storage="bfloat16", gradient_momentum=0.3
    )
    run = tiny.run(objective=UIAT(attack=tiny.attack(), inverse=inverse))
    whole = uiat.train(run, run_dir=tmp_path / "whole")
    with pytest.raises(tiny.Killed):
        uiat.train(run, run_dir=tmp_path / "stopped", listener=tiny.Killer(4))
    resumed = uiat.resume(tmp_path / "stopped")
    assert tiny.differences(tmp_path / "whole", tmp_path / "stopped") == []
    for made in (resumed.inverse, load_inverse(tmp_path / "stopped")):
        assert (made.z.dtype, made.z.shape[1:], made.image_shape) == (torch.bfloat16, (1, 4, 4), (1, 8, 8))
        assert torch.equal(made.z, whole.inverse.z)
    assert whole.inverse.z.any()
    assert "(1, 8, 8) each on a grid (1, 4, 4) in bfloat16, within Linf 0.05" in repr(resumed.inverse)
    x, y = uiat.data.tensors("digits", "test")
    by_hand = (x[:50] + enlarged(whole.inverse.z, 2)[y[:50]].float()).clamp(0, 1)
    assert torch.equal(resumed.inverse(x[:50], y[:50]), by_hand)


def test_a_warm_start_takes_any_resolution_and_type(tmp_path):
    fine = torch.rand(3, 2, 8, 12) * 0.1 - 0.05
    UniversalPerturbation(fine, THREATS[0]).save(tmp_path / "fine.safetensors")
    coarse = universal(THREATS[0], resolution="1/4", storage="float16", warm_start=str(tmp_path / "fine.safetensors"))
    z = state_of(coarse).z
    torch.testing.assert_close(z.float(), F.avg_pool2d(fine, 4), rtol=2e-3, atol=1e-6)
    UniversalPerturbation(z, THREATS[0], cell=4).save(tmp_path / "coarse.safetensors")
    again = universal(THREATS[0], warm_start=str(tmp_path / "coarse.safetensors"))
    assert torch.equal(state_of(again).z, enlarged(z, 4).float())


def test_a_file_of_version_0_1_has_the_resolution_of_the_images_and_a_false_one_is_refused(tmp_path):
    facts, z = {"kind": "uiat.inverse", "threat": "Linf:0.05"}, {"z": torch.zeros(3, 2, 8, 12)}
    write_recorded_tensors(tmp_path / INVERSE_FILE, z, facts)
    assert load_inverse(tmp_path).image_shape == (2, 8, 12)
    for cell in (0, True, "2"):
        write_recorded_tensors(tmp_path / INVERSE_FILE, z, {**facts, "cell": cell})
        with pytest.raises(UserError, match="is damaged: its cell is"):
            load_inverse(tmp_path)


@pytest.mark.parametrize(
    ("resolution", "says"),
    [
        (0.3, r'resolution must be 1 or a fraction 1/n of the image\'s, such as "1/3", not 0.3'),
        (2, r"resolution must be 1 or a fraction 1/n"),
        (0, r"resolution must be 1 or a fraction 1/n"),
        ("half", "inverse.resolution must be a number or a fraction"),
    ],
)
def test_a_resolution_that_is_none_is_refused(resolution, says):
    with pytest.raises(UserError, match=says):
        UniversalInverse(resolution=resolution)


def test_a_resolution_or_images_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="resolution 1/3 needs images whose sides 3 divides, not 8 x 12"):
        state_of(universal(THREATS[0], resolution="1/3"))
    with pytest.raises(UserError, match=r"perturbations of shape \(2, 8, 12\) do not fit images \(2, 4, 6\)"):
        UniversalPerturbation(torch.zeros(3, 2, 4, 6), THREATS[0], cell=2)(torch.rand(1, 2, 4, 6), torch.tensor([0]))
