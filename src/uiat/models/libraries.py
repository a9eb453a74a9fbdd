"""Models of timm, torchvision and transformers, behind the normalisation layer; with published weights, if asked to."""

import difflib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.models.classifier import Normalize
from uiat.models.weights_file import fit_state_dict, shrink_new_layer
from uiat.shapes import Float
from uiat.system.announcements import announce
from uiat.system.bounded_files import read_file
from uiat.system.extras import from_extra
from uiat.system.home import expand_home

PREFIXES = ("timm:", "torchvision:", "transformers:")
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
        heads = cast(Any, net).get_classifier()
        _start_new_head(
            f"timm:{name}", heads if isinstance(heads, tuple) else (heads,), facts["num_classes"], num_classes
        )
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


class TransformersClassifier(nn.Module):
    """An image classifier of transformers behind the normalisation layer, from images in [0, 1] to logits.

    Its state dict has the keys `normalize.*` and `net.*`.
    """

    def __init__(self, normalize: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.normalize, self.net = normalize, net

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Map images in [0, 1] to logits."""
        logits: Tensor = self.net(pixel_values=self.normalize(x)).logits
        return logits


def transformers_model(
    name: str, *, num_classes: int, image_shape: tuple[int, int, int], normalize: nn.Module, pretrained: bool = False
) -> TransformersClassifier:
    """Build an image classifier of transformers from a folder that `save_pretrained` has written.

    Only config.json and, for `pretrained`, model.safetensors and preprocessor_config.json are read: nothing is
    downloaded, and code that a folder brings is not run.

    Args:
        name: the folder.
        num_classes: K.
        image_shape: (channels, height, width).
        normalize: normalisation of the images, unless the folder states that of its weights.
        pretrained: True for the weights of the folder; the last layer is new where they are of other classes.

    Raises:
        UserError: where transformers is not installed, the folder holds no image classifier, or its weights do not fit.

    Example:
        >>> transformers_model("missing", num_classes=2, image_shape=(3, 32, 32), normalize=Normalize([0.5], [0.5]))
        Traceback (most recent call last):
        uiat.errors.UserError: transformers:missing: there is no missing/config.json; name a folder that ...
    """
    folder = expand_home(name)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"transformers:{name}: there is no {folder / 'config.json'}; name a folder that save_pretrained has "
            "written: nothing is downloaded"
        )
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise UserError(
            f"transformers:{name} needs the package transformers; install it with: pip install 'uiat[transformers]'"
        ) from error
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.num_labels = num_classes
        for field, value in (("image_size", image_shape[1]), ("num_channels", image_shape[0])):
            if hasattr(config, field):
                setattr(config, field, value)
        auto = AutoModelForImageClassification
        if not pretrained:
            return TransformersClassifier(normalize, auto.from_config(config, trust_remote_code=False))
        net = _load_from_folder(auto, config, folder, num_classes=num_classes)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"transformers:{name} holds no image classifier for {image_shape}: {reason}") from error
    return TransformersClassifier(_stated_normalize(folder, normalize), net)


def _load_from_folder(auto: Any, config: Any, folder: Path, *, num_classes: int) -> nn.Module:
    """Make a network with the weights of its folder, by transformers, which renames what older versions wrote.

    Raises:
        UserError: weights that do not fit in more than the number of classes.
    """
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    net, report = auto.from_pretrained(
        folder, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **options
    )
    differ = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in report["mismatched_keys"]}
    heads = {theirs[0] for theirs, ours in differ.values() if theirs[1:] == ours[1:] and ours[0] == num_classes}
    wrong = [f"{name} is {theirs} and not {ours}" for name, (theirs, ours) in differ.items() if theirs[1:] != ours[1:]]
    wrong += [f"missing {name}" for name in sorted(report["missing_keys"]) if name not in differ]
    wrong += [f"unexpected {name}" for name in sorted(report["unexpected_keys"])]
    if wrong or len(heads) > 1:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"the weights in {folder} do not fit the model: {', '.join(wrong[:3])}{more}")
    for classes in heads:
        new = nn.ParameterList(net.get_parameter(key) for key in differ)
        _start_new_head(f"transformers:{folder}", (new,), classes, num_classes)
    return cast(nn.Module, net)


def _stated_normalize(folder: Path, normalize: nn.Module) -> nn.Module:
    """Return the normalisation that a folder of transformers states for its weights, or the given one."""
    facts = folder / "preprocessor_config.json"
    try:
        stated = json.loads(read_file(facts)) if facts.is_file() else {}
        return Normalize(stated["image_mean"], stated["image_std"]) if "image_mean" in stated else normalize
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{facts} is damaged: {' '.join(str(error).split())[:200]}") from error


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


def _start_new_head(name: str, heads: Sequence[nn.Module], theirs: int, ours: int) -> None:
    with torch.no_grad():
        for weight in (p for head in heads for p in head.parameters()):
            weight.copy_(shrink_new_layer(weight))
    announce(
        f"{name}: the last layer is new: the weights are of {theirs} classes, the model has {ours}",
        level=logging.WARNING,
    )
