"""The prepared copy: the same logits and gradients, fewer layers, everything counted, and the model where it fails."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support.helpers import assert_untouched, cnn, mlp, snapshot
from uiat import models
from uiat.speed.fast_copy import CPU_LEAST, Affine, CountingModel, fastest_batch, make_fast_copy

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def shaken(model: nn.Module) -> nn.Module:
    """The model with BatchNorm layers that do something: statistics, weights and biases away from the initial ones."""
    for module in model.modules():
        if isinstance(module, NORMS):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)  # some of them negative
                nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def norms(model: object) -> int:
    return sum(isinstance(m, NORMS) for m in model.modules())


def assert_same(fast: CountingModel, model: nn.Module, x: Tensor) -> None:
    """Logits and input gradients."""
    found = []
    for of in (fast, model):
        images = x.clone().requires_grad_()
        logits = of(images)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.int64)), images)
        found.append((logits.detach(), gradient))
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


class Odd(nn.Module):
    """A convolution, and a BatchNorm on what `forward` makes of its output."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.conv, self.norm, self.between = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), between

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        if self.between == "activation in place":
            h = F.relu(h, inplace=True)
        if self.between == "a copy":
            h = h + 0
        z = self.norm(h)
        if self.between == "another reader":
            z = z + h
        if self.between == "twice":
            z = z + self.conv(x.flip(3))
        if self.between == "the norm twice":
            z = z + self.norm(h.flip(3))
        return z.relu().mean((2, 3))


@pytest.mark.parametrize("name", ["small-cnn", "preact-resnet8", "resnet18", "wrn-10-1"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_built_in_models_lose_every_norm_and_stay_the_same(name, activation):
    model = shaken(models.build(name, num_classes=4, image_shape=(3, 8, 8), width=None, activation=activation))
    x = torch.rand(6, 3, 8, 8)
    fast = make_fast_copy(model, x)
    assert norms(model) > 0
    assert norms(fast.model) == 0
    assert_same(fast, model, torch.rand(5, 3, 8, 8))


def test_norm_that_follows_a_convolution_costs_nothing_and_another_one_multiplication():
    model = shaken(models.build("preact-resnet8", num_classes=4, image_shape=(3, 8, 8), width=4))
    fast = make_fast_copy(model, torch.rand(2, 3, 8, 8))
    left = [m for m in fast.model.modules() if isinstance(m, Affine)]
    # bn2 of each of the three blocks reads conv1 alone; bn1 reads what a shortcut reads too, the last norm a sum.
    assert norms(model) == 7
    assert len(left) == 4


@pytest.mark.parametrize(
    "between",
    ["nothing", "activation in place", "a copy", "another reader", "twice", "the norm twice"],
)
def test_what_is_between_convolution_and_norm_is_respected(between):
    model, x = shaken(Odd(between)), torch.rand(4, 1, 8, 8)
    fast = make_fast_copy(model, x)
    assert norms(fast.model) == (1 if between == "the norm twice" else 0)
    assert sum(isinstance(m, nn.Identity) for m in fast.model.modules()) == (between == "nothing")
    assert_same(fast, model, torch.rand(3, 1, 8, 8))


@pytest.mark.parametrize("affine", [True, False])
def test_linear_layers_and_norms_without_weights(affine):
    model = shaken(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8, affine=affine), nn.ReLU()))
    x = torch.rand(4, 1, 8, 8)
    fast = make_fast_copy(model, x)
    assert norms(fast.model) == 0
    assert sum(isinstance(m, Affine) for m in fast.model.modules()) == (0 if affine else 1)
    assert_same(fast, model, x)


def test_norm_over_the_positions_of_a_sequence_is_no_norm_of_features():
    model = shaken(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Flatten()))  # (b, 6 positions, 6 features)
    x = torch.rand(4, 6, 6)
    assert_same(make_fast_copy(model, x), model, x)


def test_norm_without_statistics_stays():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()).eval()
    x = torch.rand(4, 1, 8, 8)
    assert norms(make_fast_copy(model, x).model) == 1


def test_a_layer_with_hooks_stays():
    model = shaken(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()))
    model[1].register_forward_hook(lambda module, inputs, output: output + 1)
    x = torch.rand(4, 1, 8, 8)
    fast = make_fast_copy(model, x)
    assert norms(fast.model) == 1
    assert_same(fast, model, x)


def test_model_is_left_as_it_was_and_its_later_training_does_not_reach_the_copy():
    model = cnn()
    before = snapshot(model)
    x = torch.rand(3, 1, 8, 8)
    fast = make_fast_copy(model, x)
    assert_untouched(model, before)
    logits = fast(x)
    assert not any(p.requires_grad for p in fast.model.parameters())
    assert not fast.model.training
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert torch.equal(fast(x), logits)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.randn(len(x), 3)


class Uncopied(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]

    def __deepcopy__(self, memo: object) -> "Uncopied":
        raise TypeError("cannot be copied")


@pytest.mark.parametrize("kind", [Noisy, Uncopied])
def test_the_model_itself_where_there_is_no_faithful_copy(kind):
    model = kind()
    assert make_fast_copy(model, torch.rand(2, 1, 8, 8)).model is model


def test_logits_that_are_not_numbers_fall_back_to_the_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.constant_(model[1].bias, float("nan"))
    assert make_fast_copy(model, torch.rand(2, 1, 8, 8)).model is model


def test_passes_are_counted_by_images():
    fast = make_fast_copy(mlp(), torch.rand(4, 1, 8, 8))
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        fast(x)
    assert (fast.forward, fast.backward) == (5, 0)
    images = x.clone().requires_grad_()
    logits = fast(images)
    assert (fast.forward, fast.backward) == (10, 0)
    torch.autograd.grad(logits.sum(), images)
    assert (fast.forward, fast.backward) == (10, 5)


def test_images_that_are_no_images_keep_their_layout():
    model = mlp(image_shape=(7,))
    assert_same(make_fast_copy(copy.deepcopy(model), torch.rand(4, 7)), model.eval(), torch.rand(2, 7))


def test_compilation_falls_back_where_it_fails(monkeypatch):
    def broken(model, **options):
        def call(x):
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    model, x = mlp().eval(), torch.rand(4, 1, 8, 8)
    assert_same(make_fast_copy(model, x, compile=True), model, x)


def test_compiled_copy_is_used_where_it_works(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **options: lambda x: model(x))
    model, x = mlp().eval(), torch.rand(4, 1, 8, 8)
    fast = make_fast_copy(model, x, compile=True)
    assert not isinstance(fast.model, nn.Module)
    assert_same(fast, model, x)


def test_batches_on_a_cpu_shrink_with_the_size_of_the_network_and_stay_within_bounds():
    def size(name: str, width: int, **bounds: int) -> int:
        model = models.build(name, num_classes=10, image_shape=(3, 32, 32), width=width)
        before = snapshot(model)
        found = fastest_batch(model, torch.rand(1, 3, 32, 32), **bounds)
        assert_untouched(model, before)
        return found

    assert CPU_LEAST < size("preact-resnet8", 32) < size("preact-resnet8", 8) < 500
    assert size("small-cnn", 4) == 500
    assert size("preact-resnet8", 8, at_most=20) == 20
    assert size("preact-resnet8", 128) == CPU_LEAST
    assert size("preact-resnet8", 128, at_most=3) == 3


def test_batches_elsewhere_are_as_large_as_allowed():
    assert fastest_batch(mlp(), torch.empty(1, 1, 8, 8, device="meta"), at_most=300) == 300
