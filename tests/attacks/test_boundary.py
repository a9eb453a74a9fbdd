"""The way onto a hyperplane within the box: as short as a solver finds, in the box, on the plane, for any input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog

from support.helpers import interior, mlp
from uiat.attacks.boundary import nearest_boundary, step_onto_hyperplane
from uiat.errors import UserError

NORMS = ("Linf", "L2", "L1")
every_norm = pytest.mark.parametrize("norm", NORMS)
ORDER = {"Linf": float("inf"), "L2": 2, "L1": 1}


def length(d, norm):
    return torch.linalg.vector_norm(d.flatten(1).double(), ord=ORDER[norm], dim=1)


def reach(x, w, gap):
    """How much of |gap| the nearest corner of the box gains."""
    toward = w * gap.sign()[:, None]
    return torch.where(toward > 0, toward * (1 - x), -toward * x).sum(1)


def solved(x, w, gap, norm):
    """The length of the shortest way by a linear program, or, in L2, by the root of the Lagrange multiplier."""
    x, w = x.numpy().astype(float), w.numpy().astype(float)
    n = len(x)
    if norm == "L2":

        def d(multiplier):
            return np.clip(multiplier * w, -x, 1 - x)

        # At 1 / min |w| every pixel with a weight has reached its edge.
        end = np.sign(gap) / np.abs(w[w != 0]).min()
        return float(np.linalg.norm(d(brentq(lambda m: w @ d(m) - gap, 0, end, xtol=1e-15, rtol=1e-14))))
    if norm == "Linf":  # variables d and t: minimise t such that |d_i| <= t
        cost, eye = np.r_[np.zeros(n), 1.0], np.eye(n)
        above = np.block([[eye, -np.ones((n, 1))], [-eye, -np.ones((n, 1))]])
        bounds = [*zip(-x, 1 - x, strict=True), (0, None)]
        plane = np.r_[w, 0.0]
    else:  # variables d and t: minimise sum t such that |d_i| <= t_i
        cost, eye = np.r_[np.zeros(n), np.ones(n)], np.eye(n)
        above = np.block([[eye, -eye], [-eye, -eye]])
        bounds = [*zip(-x, 1 - x, strict=True), *[(0, None)] * n]
        plane = np.r_[w, np.zeros(n)]
    found = linprog(cost, A_ub=above, b_ub=np.zeros(2 * n), A_eq=plane[None], b_eq=[float(gap)], bounds=bounds)
    assert found.success, found.message
    return float(found.fun)


def problems(seed, n, rows, share, kind):
    """Points, normals, and gaps of a share of what the box allows; some pixels at an edge, some without weight."""
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, n, generator=source, dtype=torch.float64)
    w = torch.randn(rows, n, generator=source, dtype=torch.float64)
    if kind == "edges":
        x = torch.where(torch.rand(rows, n, generator=source) < 0.5, x.round(), x)
    if kind == "zeros":
        w = torch.where(torch.rand(rows, n, generator=source) < 0.4, 0.0, w)
    if kind == "ties":
        x, w = (x * 2).round() / 2, (w * 2).round() / 2
    sign = torch.where(torch.rand(rows, generator=source) < 0.5, -1.0, 1.0).double()
    return x, w, sign * share * reach(x, w, sign)


@every_norm
@pytest.mark.parametrize("kind", ["plain", "edges", "zeros", "ties"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_no_way_is_shorter(norm, kind, share):
    for n in (1, 2, 7):
        x, w, gap = problems(n, n, 6, share, kind)
        possible = gap != 0
        x, w, gap = x[possible], w[possible], gap[possible]
        d = step_onto_hyperplane(x, w, gap, norm=norm)
        torch.testing.assert_close((w * d).sum(1), gap, rtol=1e-12, atol=1e-12)
        for row in range(len(x)):
            expected = solved(x[row], w[row], gap[row].item(), norm)
            assert length(d, norm)[row].item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


cases = st.tuples(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 3, 64, 500]),
    st.integers(1, 5),
    st.sampled_from([0.0, 1e-6, 0.1, 0.5, 0.9, 0.999999, 1.0, 1.000001, 3.0]),
    st.sampled_from(["plain", "edges", "zeros", "ties"]),
)


@given(cases, st.sampled_from(NORMS), st.sampled_from([torch.float32, torch.float64]))
def test_always_in_the_box_and_on_the_plane_or_in_the_nearest_corner(case, norm, dtype):
    x, w, gap = (v.to(dtype) for v in problems(*case))
    d = step_onto_hyperplane(x, w, gap, norm=norm)
    assert d.dtype == dtype
    assert d.isfinite().all()
    small = 1e-5 if dtype == torch.float32 else 1e-12
    assert ((x + d >= -small) & (x + d <= 1 + small)).all()
    assert (d[w == 0] == 0).all()
    assert (d * w * gap[:, None] >= 0).all()  # nothing moves away from the plane
    limit = reach(x, w, gap)
    gained = (w * d).sum(1) * gap.sign()
    scale = w.abs().sum(1)
    missed = (gained - torch.minimum(gap.abs(), limit)).abs() / scale.clamp_min(1)
    assert (missed <= small).all()


@given(cases, st.sampled_from(NORMS))
def test_a_point_is_projected_as_if_it_were_alone(case, norm):
    x, w, gap = (v.float() for v in problems(*case))
    together = step_onto_hyperplane(x, w, gap, norm=norm)
    alone = torch.cat(
        [step_onto_hyperplane(x[i : i + 1], w[i : i + 1], gap[i : i + 1], norm=norm) for i in range(len(x))]
    )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@every_norm
@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-12, 1e12, 1e30])
def test_the_size_of_the_normal_plays_no_part(norm, scale):
    x, w, gap = (v.float() for v in problems(0, 64, 8, 0.3, "plain"))
    d = step_onto_hyperplane(x, w * scale, gap * scale, norm=norm)
    torch.testing.assert_close(d, step_onto_hyperplane(x, w, gap, norm=norm), rtol=1e-4, atol=1e-5)


@every_norm
def test_a_plane_beyond_the_box_leads_to_the_corner(norm):
    x, w = torch.tensor([[0.25, 0.5, 0.75]]), torch.tensor([[1.0, -2.0, 0.0]])
    assert step_onto_hyperplane(x, w, torch.tensor([1e9]), norm=norm).tolist() == [[0.75, -0.5, 0.0]]
    assert step_onto_hyperplane(x, w, torch.tensor([-1e38]), norm=norm).tolist() == [[-0.25, 0.5, 0.0]]


@every_norm
def test_no_normal_or_no_gap_leads_nowhere(norm):
    x = torch.rand(3, 2, 4, 4)
    w = torch.randn_like(x)
    assert (step_onto_hyperplane(x, torch.zeros_like(x), torch.tensor([1.0, -1.0, 0.0]), norm=norm) == 0).all()
    assert (step_onto_hyperplane(x, w, torch.zeros(3), norm=norm) == 0).all()


@every_norm
def test_a_point_that_rounding_put_outside_does_not_move_back(norm):
    x, w = torch.tensor([[1 + 1e-6, 0.5], [-1e-6, 0.5]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    d = step_onto_hyperplane(x, w, torch.tensor([0.25, 0.25]), norm=norm)
    torch.testing.assert_close(d, torch.tensor([[0.0, 0.25], [0.0, -0.25]]), rtol=0, atol=1e-7)
    assert (d[:, 0] == 0).all()


@every_norm
def test_images_keep_their_shape_and_an_empty_batch_is_one(norm):
    x = torch.rand(2, 3, 4, 5)
    assert step_onto_hyperplane(x, x - 0.5, torch.ones(2), norm=norm).shape == x.shape
    assert step_onto_hyperplane(x[:0], x[:0], torch.ones(0), norm=norm).shape == (0, 3, 4, 5)


@pytest.mark.parametrize(("norm", "expected"), [("Linf", [0.1, 0.1]), ("L2", [0.06, 0.12]), ("L1", [0.0, 0.15])])
def test_the_closed_forms_far_from_the_edges(norm, expected):
    x, w = torch.full((1, 2), 0.5), torch.tensor([[1.0, 2.0]])
    d = step_onto_hyperplane(x, w, torch.tensor([0.3]), norm=norm)
    torch.testing.assert_close(d, torch.tensor([expected]))


def test_pixels_that_run_out_one_after_the_other():
    """The worst case: a step of the search for each pixel."""
    x = 1 - torch.logspace(-6, 0, 300, dtype=torch.float64)[None]
    w = torch.logspace(4, -4, 300, dtype=torch.float64)[None]
    for norm in NORMS:
        for share in (0.01, 0.5, 0.99999):
            gap = share * reach(x, w, torch.ones(1))
            d = step_onto_hyperplane(x, w, gap, norm=norm)
            torch.testing.assert_close((w * d).sum(1), gap, rtol=1e-9, atol=0)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_reference_goes_the_same_way(norm):
    theirs = getattr(pytest.importorskip("pyautoattack.fab_projections"), f"projection_{norm.lower()}")
    for share in (0.1, 0.5, 0.95):
        x, w, gap = (v.float() for v in problems(5, 64, 32, share, "plain"))
        d = theirs(x, w, (w * x).sum(1) + gap)
        torch.testing.assert_close(step_onto_hyperplane(x, w, gap, norm=norm), d, rtol=1e-3, atol=1e-4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(UserError, match="unknown norm 'L3'"):
        step_onto_hyperplane(torch.rand(1, 2), torch.rand(1, 2), torch.ones(1), norm="L3")


# --- the nearest boundary


@every_norm
def test_the_nearest_boundary_of_several(norm):
    """Against all pairs of classes, one after the other."""
    model, x = mlp(classes=5).double().eval(), interior(8).double()
    y = model(x).argmax(1)
    here = nearest_boundary(model, x, y, norm=norm)
    x = x.clone().requires_grad_(True)
    logits = model(x)
    order = {"Linf": 1, "L2": 2, "L1": float("inf")}[norm]
    for i in range(8):
        ways = []
        for k in range(5):
            gap = logits[i, k] - logits[i, y[i]]
            (slope,) = torch.autograd.grad(gap, x, retain_graph=True)
            steepness = torch.linalg.vector_norm(slope[i].flatten(), ord=order)
            ways.append((float("inf") if k == y[i] else (gap.abs() / steepness).item(), k, gap.detach(), slope[i]))
        _, _, gap, slope = min(ways, key=lambda way: way[0])
        torch.testing.assert_close(here.values[i], gap)
        torch.testing.assert_close(here.gradient[i], slope)
    torch.testing.assert_close(here.logits, logits.detach())
    assert not here.values.requires_grad


def test_a_model_that_detaches_its_input_is_refused():
    with pytest.raises(UserError, match="detaches or quantises"):
        nearest_boundary(lambda x: x.detach().flatten(1), interior(2), torch.tensor([0, 1]), norm="L2")
