"""Models of timm and torchvision, behind the normalisation layer; with the weights that they publish, if asked to."""

import difflib
import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from uiat.errors import UserError
from uiat.models.classifier import Normalize
from uiat.models.weights_file import fit_state_dict
from uiat.shapes import Float
from uiat.system.announcements import announce
from uiat.system.extras import from_extra

PREFIXES = ("timm:", "torchvision:")
# The networks of torchvision with a second head for training, which is left out.
_AUXILIARY = ("googlenet", "inception_v3")


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
    name: str, *, num_classes: int, image_shape: tuple[int, int, int], normalize: nn.Module, pretrained: bool = False
) -> TimmClassifier:
    """Build a timm model by name for images of this shape, with new weights or with those that timm publishes.

    Published weights bring their own normalisation, unless the images have another number of channels.

    Raises:
        UserError: where timm is not installed, has no such model, cannot make it for this image shape, or cannot fetch
            its weights.

    Example:
        >>> from uiat.models import Normalize
        >>> first = Normalize([0.5], [0.5])
        >>> model = timm_model("resnet10t", num_classes=2, image_shape=(1, 32, 32), normalize=first)
        >>> model.normalize is first
        True
    """
    with from_extra("timm", f"timm:{name}"):
        import timm
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": image_shape[0]}
    try:
        try:
            # Transformers must be told the image size; convolutional networks do not know the argument.
            net = timm.create_model(name, img_size=image_shape[1:], **options)
        except TypeError:
            net = timm.create_model(name, **options)
    except Exception as error:
        if pretrained:
            raise _not_fetched(f"timm:{name}", error) from error
        raise UserError(f"timm cannot make {name!r} for images of shape {image_shape}: {error}") from error
    _check_patches(name, net, image_shape)
    facts: dict[str, Any] = vars(net).get("pretrained_cfg", {}) if pretrained else {}
    if facts.get("num_classes", num_classes) != num_classes:
        _announce_new_head(f"timm:{name}", facts["num_classes"], num_classes)
    if len(facts.get("mean", ())) == image_shape[0]:
        normalize = Normalize(facts["mean"], facts["std"])
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


class TorchvisionClassifier(nn.Module):
    """A torchvision model behind the normalisation layer; its state dict has the keys `normalize.*` and `net.*`.

    Example:
        >>> import torch
        >>> from uiat.models import build
        >>> build("torchvision:squeezenet1_1", num_classes=2, image_shape=(3, 32, 32))(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 2])
    """

    def __init__(self, normalize: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.normalize, self.net = normalize, net

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Map images in [0, 1] to logits."""
        logits: Tensor = self.net(self.normalize(x))
        return logits


def torchvision_model(
    name: str, *, num_classes: int, image_shape: tuple[int, int, int], normalize: nn.Module, pretrained: bool = False
) -> TorchvisionClassifier:
    """Build a torchvision model by name for images of this shape, with new weights or with those that it publishes.

    Published weights bring their own normalisation.

    Raises:
        UserError: where torchvision is not installed, has no such model, cannot make it for this image shape, or cannot
            fetch its weights.

    Example:
        >>> torchvision_model("resnet10", num_classes=2, image_shape=(3, 32, 32), normalize=Normalize([0.5], [0.5]))
        Traceback (most recent call last):
        uiat.errors.UserError: unknown torchvision model 'resnet10'; did you mean ...
    """
    with from_extra("data", f"torchvision:{name}"):
        import torchvision
    zoo = torchvision.models
    known = zoo.list_models(module=zoo)
    if name not in known:
        raise _unknown("torchvision", name, known)
    if image_shape[0] != 3:
        raise UserError(
            f"torchvision:{name} takes images of 3 channels, not {image_shape[0]}: timm:NAME takes any number"
        )
    options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    if name.startswith("vit_"):
        options["image_size"] = image_shape[1]
    try:
        net = zoo.get_model(name, weights=None, num_classes=num_classes, **options)
    except Exception as error:
        raise UserError(f"torchvision cannot make {name!r} for images of shape {image_shape}: {error}") from error
    if not pretrained:
        return TorchvisionClassifier(normalize, net)
    published = zoo.get_model_weights(name).DEFAULT
    try:
        tensors = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:
        raise _not_fetched(f"torchvision:{name}", error) from error
    tensors = {key: value for key, value in tensors.items() if not (options and key.startswith(("aux", "AuxLogits")))}
    for note in fit_state_dict(net, tensors, source=f"torchvision:{name}", num_classes=num_classes):
        announce(f"torchvision:{name}: {note}", level=logging.WARNING)
    facts = published.transforms()
    return TorchvisionClassifier(Normalize(facts.mean, facts.std), net)


def _unknown(library: str, name: str, known: Sequence[str]) -> UserError:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    models = "timm" if library == "timm" else "torchvision.models"
    return UserError(f"unknown {library} model {name!r}; {hint}{models}.list_models() lists all of them")


def _not_fetched(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"the pretrained weights of {name} cannot be fetched ({type(error).__name__}: {reason}): "
        "a download needs a network; where there is none, copy the file here and set model.weights=FILE"
    )


def _announce_new_head(name: str, theirs: int, ours: int) -> None:
    announce(
        f"{name}: the last layer is new: the weights are of {theirs} classes, the model has {ours}",
        level=logging.WARNING,
    )
