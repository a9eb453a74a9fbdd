"""Built-in models by name: sizes, stable keys, shapes, width, and the names and arguments refused."""

import hashlib
from functools import partial

import pytest
import torch
from torch import nn

from support.models import digits, on_meta, refusal
from uiat.models import Classifier, build, names

SMALL = ("small-cnn", "mnist-cnn", "preact-resnet8")


SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 9, 13))


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("small-cnn", 104_042),
        ("mnist-cnn", 211_306),
        ("preact-resnet8", 173_986),
        ("preact-resnet18", 11_172_170),
        ("resnet18", 11_173_962),
        ("wrn-28-10", 36_479_194),  # 36.5M in table 4 of the Wide ResNet paper
        ("wrn-34-10", 46_160_474),
        ("wrn-16-4", 2_748_890),  # 2.7M there
    ],
)
def test_parameter_counts(name, parameters):
    assert size(on_meta(name)) == parameters


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("small-cnn", "fcf74d150de436ea"),
        ("mnist-cnn", "5d4fad51ece61b40"),
        ("preact-resnet8", "0f74953d3cd43e8f"),
        ("preact-resnet18", "6c5cb74042348ff0"),
        ("resnet18", "783fb1557f3ae232"),
        ("wrn-28-10", "04031cffb7c8a6aa"),
        ("wrn-34-10", "aee34d02c70d4b00"),
    ],
)
def test_state_dict_keys_never_change(name, digest):
    # A changed name or shape makes every saved model unreadable: change the digest only with a way to load old files.
    entries = [f"{key} {tuple(value.shape)}" for key, value in on_meta(name).state_dict().items()]
    assert hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16] == digest


def test_state_dict_keys_read_well():
    assert list(digits("small-cnn").state_dict()) == [
        *("normalize.mean", "normalize.std"),
        *(
            f"body.stage{i}.{key}"
            for i in (1, 2, 3, 4)
            for key in (
                *("conv.weight", "norm.weight", "norm.bias"),
                *("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
            )
        ),
        *("head.weight", "head.bias"),
    ]
    keys = set(on_meta("preact-resnet18").state_dict())
    assert {"body.stem.weight", "body.stage2.0.shortcut.weight", "body.stage4.1.conv2.weight"} <= keys


def test_every_built_in_name_builds():
    assert {type(on_meta(name)) for name in names()} == {Classifier}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_any_image_shape(name, shape):
    model = build(name, num_classes=7, image_shape=shape)
    x = torch.rand(2, *shape)
    logits, z = model(x), model.features(x)
    assert logits.shape == (2, 7)
    assert z.shape == (2, model.head.in_features)
    assert logits.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [name for name in names() if name not in SMALL])
def test_any_image_shape_of_the_wide_models(name, shape):
    with torch.device("meta"):
        model = build(name, num_classes=7, image_shape=shape)
        assert model(torch.empty(2, *shape)).shape == (2, 7)
        assert model.features(torch.empty(2, *shape)).shape == (2, 640 if "wrn" in name else 512)


def test_the_seed_decides_the_weights():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in digits("small-cnn", width=8).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("name", names())
def test_width_is_channels_or_a_factor(name):
    default = on_meta(name).head.in_features
    assert on_meta(name, width=0.5).head.in_features == default // 2
    assert on_meta(name, width=1.0).head.in_features == default
    assert on_meta(name, width=8).head.in_features == 8 * (
        8 if name in {"mnist-cnn", "preact-resnet18", "resnet18"} else 4
    )


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (2, "for 2 times the default write 2.0"),
        (0, "width is 0; give a number of channels"),
        (-1.0, "width is -1.0; give"),
        (float("nan"), "width must be finite, but is nan"),
        (float("inf"), "width must be finite, but is inf"),
        (True, "width must be a whole number or a number, not True"),
        (32.0, "for channels give a whole number, 32"),
        (0.01, "width=0.01 leaves 0 of 32 channels"),
    ],
)
def test_width_refused(width, message):
    assert message in refusal(digits, "small-cnn", width=width)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "unknown model 'resnet81'; did you mean 'resnet18'"),
        ("", "known: mnist-cnn, preact-resnet18"),
        (
            "xyz",
            "wrn-D-K, timm:NAME, torchvision:NAME, transformers:FOLDER, path/to/file.py:function, package.module",
        ),
        ("wrn-30-10", "there is no wrn-30-10: the depth is 6n + 4"),
        ("wrn-4-10", "there is no wrn-4-10"),
        ("wrn-28-0", "there is no wrn-28-0"),
        ("net.py", "write net.py:FUNCTION"),
    ],
)
def test_names_refused(name, message):
    assert message in refusal(digits, name)


def test_arguments_refused():
    make = partial(build, "small-cnn")
    assert "num_classes is 1" in refusal(make, num_classes=1, image_shape=(1, 8, 8))
    assert "num_classes must be a whole number, not True" in refusal(make, num_classes=True, image_shape=(1, 8, 8))
    assert "give (channels, height, width)" in refusal(make, num_classes=2, image_shape=(8, 8))
    assert "give (channels, height, width)" in refusal(make, num_classes=2, image_shape=(0, 8, 8))
    assert "is (1, 7, 8); images need at least 8x8 pixels" in refusal(make, num_classes=2, image_shape=(1, 7, 8))
    assert "(channels, height, width) is (32, 32, 3)" in refusal(make, num_classes=2, image_shape=(32, 32, 3))
    assert "did you mean 'relu'" in refusal(digits, "small-cnn", activation="rellu")


@pytest.mark.parametrize("options", [{"width": 8}, {"activation": "silu"}])
@pytest.mark.parametrize("name", ["timm:resnet10t", "own_net.py:make"])
def test_width_and_activation_are_for_built_in_models(name, options):
    assert "width and activation cannot be set" in refusal(digits, name, **options)
