"""Universal perturbations as an object, and the means over classes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from uiat import L2, Linf, UniversalInverse, UniversalPerturbation, load_inverse
from uiat.errors import UserError
from uiat.inverse import InverseState, class_means
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


@pytest.mark.parametrize("threat", [Linf("4/255"), L2(0.1)])
def test_saving_and_loading_keep_every_bit(tmp_path, threat):
    z = UniversalPerturbation(threat.noise(torch.zeros(4, 3, 8, 8)), threat)
    z.save(tmp_path / "z.safetensors")
    again = load_inverse(tmp_path / "z.safetensors")
    assert torch.equal(again.z, z.z)
    assert again.threat == threat


def test_it_is_applied_by_label_and_clipped():
    z = UniversalPerturbation(torch.tensor([-0.1, 0.1]).view(2, 1, 1, 1).expand(2, 1, 8, 8), Linf(0.1))
    x = torch.tensor([0.05, 0.95, 0.5, 0.5]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    moved = z(x, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(moved[:, 0, 0, 0], torch.tensor([0.0, 1.0, 0.4, 0.6]))
    assert z(x.double(), torch.tensor([0, 1, 0, 1])).dtype == torch.float64


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (torch.rand(2, 3, 8, 8), [0, 1], r"\(1, 8, 8\) do not fit images \(3, 8, 8\)"),
        (torch.rand(2, 1, 8, 8), [0, 4], r"labels must be in 0\.\.3"),
        (torch.rand(2, 1, 8, 8), [-1, 0], r"labels must be in 0\.\.3"),
    ],
)
def test_it_refuses_what_does_not_fit(x, y, says):
    with pytest.raises(UserError, match=says):
        UniversalPerturbation(torch.zeros(4, 1, 8, 8), LINF)(x, torch.tensor(y))


def test_a_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match="no universal perturbations"):
        load_inverse(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="not a file of universal inverse perturbations"):
        load_inverse(tmp_path / "weights.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_inverse(tmp_path / "torn.safetensors")


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**31))
def test_class_means_are_means(n, k, seed):
    source = torch.Generator().manual_seed(seed)
    values, y = torch.randn(n, 2, 3, generator=source), torch.randint(k, (n,), generator=source)
    means, present = class_means(values, y, k)
    for c in range(k):
        assert bool(present[c]) == bool((y == c).any())
        expected = values[y == c].mean(dim=0) if present[c] else torch.zeros(2, 3)
        torch.testing.assert_close(means[c], expected)


def test_sums_that_are_kept_are_exact_in_a_step_of_bf16():
    p, y = torch.softmax(torch.randn(64, 10), dim=1), torch.arange(64) % 10
    plain, half = (InverseState(None, gradient_momentum=False, rows=10, num_classes=10) for _ in range(2))
    for _ in range(3):
        plain.remember(y, p, 0.999, by_class=True)
        with torch.autocast("cpu", torch.bfloat16):
            half.remember(y, p, 0.999, by_class=True)
    assert torch.equal(plain.p_bar, half.p_bar)
