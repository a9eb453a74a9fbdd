"""The bodies of the built-in models: blocks by hand, initialisation, gradients, precisions, memory formats."""

import pytest
import torch
from torch import nn

from support.models import cifar, digits
from uiat.models import build

BODIES = ("small-cnn", "mnist-cnn", "preact-resnet8", "resnet18", "wrn-10-1")


@pytest.mark.parametrize("name", BODIES)
def test_the_head_reads_the_features(name):
    model = digits(name, width=8).eval()
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.head(model.features(x)), model(x))


def test_a_preactivation_block_by_hand():
    model = digits("preact-resnet8", width=4).eval()
    z = model.body.stem(model.normalize(torch.rand(2, 1, 8, 8)))
    block = model.body.stage2[0]
    z = model.body.stage1(z)
    activated = block.bn1(z).relu()
    expected = block.conv2(block.bn2(block.conv1(activated)).relu()) + block.shortcut(activated)
    torch.testing.assert_close(block(z), expected)


def test_a_basic_block_by_hand():
    model = digits("resnet18", width=4).eval()
    block, z = model.body.stage2[0], torch.rand(2, 4, 8, 8)
    expected = (block.bn2(block.conv2(block.bn1(block.conv1(z)).relu())) + block.shortcut(z)).relu()
    torch.testing.assert_close(block(z), expected)


def test_convolutions_start_at_he_fan_out_and_batch_norm_at_one():
    model = build("resnet18", num_classes=10, image_shape=(3, 32, 32), width=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


@pytest.mark.parametrize("name", BODIES)
def test_activation_is_used_throughout(name):
    def kinds(**options: str) -> set[type]:
        return {type(m) for m in digits(name, width=8, **options).modules()} & {nn.ReLU, nn.SiLU}

    assert kinds() == kinds(activation="relu") == {nn.ReLU}
    assert kinds(activation="silu") == {nn.SiLU}
    assert digits(name, width=8, activation="silu")(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("name", BODIES)
def test_gradient_with_respect_to_the_input(name, activation):
    model = digits(name, width=4, activation=activation, mean=(0.3,), std=(0.3,)).double().eval()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(model(x)[0, 3], x)[0]
    direction = torch.randn_like(x)
    with torch.no_grad():
        slope = (model(x + 1e-6 * direction) - model(x - 1e-6 * direction))[0, 3] / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", BODIES)
def test_float64(name):
    model = digits(name, width=8).double()
    assert model(torch.rand(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("name", BODIES)
def test_bfloat16_autocast_with_gradients(name):
    model, x = digits(name, width=8), torch.rand(4, 1, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert x.grad.dtype == torch.float32
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", BODIES)
def test_channels_last(name):
    model, x = cifar(name, width=8).eval(), torch.rand(2, 3, 32, 32)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    assert model.normalize(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8"])
def test_compiles_in_one_graph(name, unchecked):
    model, x = digits(name, width=8).eval(), torch.rand(2, 1, 8, 8)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))
