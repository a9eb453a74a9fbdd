"""Build a model by its name."""

import re
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from uiat.checks import checked
from uiat.errors import UserError, nearest
from uiat.models import architectures, custom, libraries
from uiat.models.classifier import Classifier, Normalize

_Body = Callable[..., tuple[nn.Module, int]]
# name -> (body, channels of its first stage). Wide ResNets are read from their names, see `_wide_resnet`.
_BODIES: dict[str, tuple[_Body, int]] = {
    "small-cnn": (architectures.small_cnn, 32),
    "mnist-cnn": (architectures.mnist_cnn, 16),
    "preact-resnet8": (partial(architectures.preact_resnet, blocks=(1, 1, 1)), 24),
    "preact-resnet18": (partial(architectures.preact_resnet, blocks=(2, 2, 2, 2)), 64),
    "resnet18": (partial(architectures.resnet, blocks=(2, 2, 2, 2)), 64),
}
_LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "timm": libraries.timm_model,
    "torchvision": libraries.torchvision_model,
    "transformers": libraries.transformers_model,
}
_ACTIVATIONS = ("relu", "silu")
_FEWEST_CHANNELS, _LARGEST_FACTOR = 4, 16


def names() -> tuple[str, ...]:
    """Return the names of the built-in models; `build` also takes any `wrn-D-K`, timm models and the user's own.

    Example:
        >>> names()
        ('small-cnn', 'mnist-cnn', 'preact-resnet8', 'preact-resnet18', 'resnet18', 'wrn-28-10', 'wrn-34-10')
    """
    return (*_BODIES, "wrn-28-10", "wrn-34-10")


@checked
def build(
    name: str,
    *,
    num_classes: int,
    image_shape: Sequence[int],
    width: int | float | None = None,
    activation: str = "relu",
    mean: Sequence[float | int] | Tensor | None = None,
    std: Sequence[float | int] | Tensor | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Build a model by name, initialised from torch's global generator: images in [0, 1] (B, C, H, W) to logits (B, K).

    Args:
        name: one of `names()`, any `wrn-D-K` with D = 6n + 4, `timm:NAME`, `torchvision:NAME`, `transformers:FOLDER`,
            or the user's own function as `path/to/file.py:function` or `package.module:function`, which is called as
            `function(num_classes=, image_shape=)`, must return an `nn.Module`, and does its own normalisation.
        num_classes: number of classes K, at least 2.
        image_shape: (channels, height, width); any number of channels, height and width of at least 8.
        width: a whole number is the channels of the first stage (such as 16), a float a factor on the default (0.5).
        activation: "relu" or "silu".
        mean: mean of the training images in [0, 1], one value a channel; 0 by default. The user's own function does
            not get it.
        std: standard deviation of the training images, likewise; 1 by default.
        pretrained: True for the weights that timm or torchvision publish, which are downloaded, or those in the folder
            of transformers; the last layer is new where they are of another number of classes, and their normalisation
            takes the place of mean and std.

    Raises:
        UserError: for a name, shape, width, activation or statistic that cannot be used, saying what to change.

    Example:
        >>> import torch
        >>> model = build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
        >>> model(torch.rand(2, 1, 8, 8)).shape, model.features(torch.rand(2, 1, 8, 8)).shape
        (torch.Size([2, 10]), torch.Size([2, 32]))
    """
    shape = _check_image_shape(image_shape)
    if num_classes < 2:
        raise UserError(f"num_classes is {num_classes}; a classifier needs at least 2")
    if activation not in _ACTIVATIONS:
        raise nearest("activation", activation, _ACTIVATIONS)
    if ":" in name:
        if width is not None or activation != "relu":
            raise UserError(f"width and activation cannot be set for {name!r}; set them in the model's own definition")
        if not name.startswith(libraries.PREFIXES):
            _refuse_pretrained(name, pretrained)
            return custom.own_model(name, num_classes=num_classes, image_shape=shape)
        library, _, net = name.partition(":")
        make_net = _LIBRARIES[library]
        normalize = _make_normalize(shape[0], mean=mean, std=std)
        return make_net(net, num_classes=num_classes, image_shape=shape, normalize=normalize, pretrained=pretrained)
    _refuse_pretrained(name, pretrained)
    make, base = _lookup(name)
    body, features = make(shape[0], _channels(width, base=base), activation=activation)
    architectures.initialise(body)
    return Classifier(_make_normalize(shape[0], mean=mean, std=std), body, nn.Linear(features, num_classes))


def is_own_code(name: str) -> bool:
    """True if a model's name is one of the user's own code, which building it runs.

    Example:
        >>> is_own_code("net.py:make"), is_own_code("torchvision:resnet18"), is_own_code("wrn-28-10")
        (True, False, False)
    """
    # A second colon in timm:hf-hub:NAME or timm:local-dir:PATH would fetch or read what it says.
    return ":" in (name.partition(":")[2] if name.startswith(libraries.PREFIXES) else name)


def _refuse_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        raise UserError(
            f"no weights are published of {name!r}: model.pretrained is for timm:NAME, torchvision:NAME and "
            "transformers:FOLDER; "
            "set model.weights=FILE for weights of your own"
        )


def _lookup(name: str) -> tuple[_Body, int]:
    if name in _BODIES:
        return _BODIES[name]
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        return _wide_resnet(int(match[1]), int(match[2]))
    if name.endswith(".py"):
        raise UserError(f"{name!r} does not say which function makes the model; write {name}:FUNCTION")
    raise UserError(
        f"{nearest('model', name, names())}; or wrn-D-K, timm:NAME, torchvision:NAME, transformers:FOLDER, "
        "path/to/file.py:function, package.module:function"
    )


def _wide_resnet(depth: int, factor: int) -> tuple[_Body, int]:
    """Return a Wide ResNet: depth 6n + 4 in three stages of n blocks, widths 16k, 32k, 64k (arXiv:1605.07146)."""
    if depth < 10 or (depth - 4) % 6 or factor < 1:
        raise UserError(
            f"there is no wrn-{depth}-{factor}: the depth is 6n + 4 (10, 16, 22, 28, 34, ...) and the factor at least 1"
        )
    return partial(architectures.preact_resnet, blocks=((depth - 4) // 6,) * 3, stem=16), 16 * factor


def _channels(width: int | float | None, *, base: int) -> int:
    """Return the channels of the first stage: an int is taken as it is, a float is a factor on the default."""
    if width is None:
        return base
    if width <= 0:
        raise UserError(f"width is {width}; give a number of channels such as {base}, or a factor such as 0.5")
    if isinstance(width, int):
        if width < _FEWEST_CHANNELS:
            raise UserError(f"width={width} means {width} channels; for {width} times the default write {width}.0")
        return width
    if width > _LARGEST_FACTOR:
        raise UserError(f"width={width} means {width} times the default; for channels give a whole number, {width:.0f}")
    channels = round(width * base)
    if channels < _FEWEST_CHANNELS:
        raise UserError(f"width={width} leaves {channels} of {base} channels; at least {_FEWEST_CHANNELS} are needed")
    return channels


def _check_image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[0] < 1:
        raise UserError(f"image_shape is {tuple(shape)}; give (channels, height, width), such as (3, 32, 32)")
    channels, height, width = shape
    if min(height, width) < 8:
        raise UserError(
            f"image_shape (channels, height, width) is {(channels, height, width)}; images need at least 8x8 pixels"
        )
    return channels, height, width


def _make_normalize(
    channels: int, *, mean: Sequence[float | int] | Tensor | None, std: Sequence[float | int] | Tensor | None
) -> Normalize:
    layer = Normalize([0.0] * channels if mean is None else mean, [1.0] * channels if std is None else std)
    if layer.mean.numel() != channels:
        raise UserError(f"mean and std have {layer.mean.numel()} values, but the images have {channels} channels")
    return layer
