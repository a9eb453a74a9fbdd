"""Models from timm or from the user's own code."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.system.own_code import own_code


class TimmClassifier(nn.Module):
    """A timm model behind the normalisation layer; its state dict has the keys `normalize.*` and `net.*`.

    Example:
        >>> import torch
        >>> from uiat.models import build
        >>> model = build("timm:resnet10t", num_classes=2, image_shape=(1, 32, 32))
        >>> model.features(torch.rand(2, 1, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(self, normalize: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.net = net

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Map images in [0, 1] to logits."""
        logits: Tensor = self.net(self.normalize(x))
        return logits

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Map images in [0, 1] to the representation that timm's last layer reads."""
        net: Any = self.net
        z: Tensor = net.forward_head(net.forward_features(self.normalize(x)), pre_logits=True)
        return z


def timm_model(
    name: str, *, num_classes: int, image_shape: tuple[int, int, int], normalize: nn.Module
) -> TimmClassifier:
    """Build a timm model by name, with new weights, for images of this shape.

    Raises:
        UserError: where timm is not installed, has no such model, or cannot make it for this image shape.

    Example:
        >>> from uiat.models import Normalize
        >>> first = Normalize([0.5], [0.5])
        >>> model = timm_model("resnet10t", num_classes=2, image_shape=(1, 32, 32), normalize=first)
        >>> model.normalize is first
        True
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(f"timm:{name} needs the package timm; install it with: pip install 'uiat[timm]'") from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UserError(f"unknown timm model {name!r}; {hint}timm.list_models() lists all of them")
    options: dict[str, Any] = {"pretrained": False, "num_classes": num_classes, "in_chans": image_shape[0]}
    try:
        try:
            # Transformers must be told the image size; convolutional networks do not know the argument.
            net = timm.create_model(name, img_size=image_shape[1:], **options)
        except TypeError:
            net = timm.create_model(name, **options)
    except Exception as error:
        raise UserError(f"timm cannot make {name!r} for images of shape {image_shape}: {error}") from error
    _check_patches(name, net, image_shape)
    return TimmClassifier(normalize, net)


def _check_patches(name: str, net: nn.Module, image_shape: tuple[int, int, int]) -> None:
    # timm would make a transformer that never sees the pixels beyond the last whole patch, or none at all.
    embed = getattr(net, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if not isinstance(patch, tuple) or getattr(embed, "dynamic_img_pad", False):
        return
    if any(side % p for side, p in zip(image_shape[1:], patch, strict=True)):
        height, width = image_shape[1:]
        raise UserError(f"timm:{name} cuts images into patches of {patch}, which do not fit images of {height}x{width}")


def own_model(name: str, *, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Call the user's function, `path/to/file.py:function` or `package.module:function`, and return its model.

    The file's own folder (or, for a module, the working folder) is searched last for imports while the function is
    found and called. An error inside the function itself is passed on as it is.

    Raises:
        UserError: for a missing file, module or function, one that does not import, one that does not take
            `num_classes` and `image_shape`, or one that returns anything but an `nn.Module`.

    Example:
        >>> own_model("torch.nn:Identity", num_classes=2, image_shape=(3, 32, 32))
        Identity()
    """
    with own_code(name, what="model") as function:
        _check_signature(name, function)
        model = function(num_classes=num_classes, image_shape=image_shape)
    if not isinstance(model, nn.Module):
        raise UserError(f"{name!r} returned {_describe(model)}; it must return a torch.nn.Module")
    return model


def _describe(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _check_signature(name: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
        signature.bind(num_classes=2, image_shape=(3, 32, 32))
    except ValueError:  # a function written in C may not say what it takes
        return
    except TypeError as error:
        called = f"{name.rpartition(':')[2]}(num_classes=, image_shape=)"
        raise UserError(f"{name} takes {signature}; it is called as {called} and must take both") from error
