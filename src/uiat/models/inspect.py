"""Ask a model what it is (device, classes, gradient), and check that it maps images to logits."""

import itertools
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from uiat.checks import checked
from uiat.errors import UserError
from uiat.models.misfit import hint_at, run_model
from uiat.models.modes import find_frozen_parts, frozen, train_mode
from uiat.models.outputs import logits_only
from uiat.shapes import Float


class Target:
    """A model, and what it is: each question is put to it once, when the answer is first needed.

    Args:
        model: maps images in [0, 1] to logits.
        x: images (n, ...); the first of them is passed through the model, on its device.
        name: what error messages call the model.
        classes: number of classes, where it is known already.

    Example:
        >>> target = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2))
        >>> target.device, target.classes, target.differentiable
        (device(type='cpu'), 2, True)
    """

    def __init__(
        self, model: nn.Module, x: Float[Tensor, "n ..."], *, name: str = "the model", classes: int | None = None
    ) -> None:
        self.model, self.name = model, name
        self._x, self._classes = x[:_IMAGES].clone(), classes  # a model that works in place changes its own copy

    @cached_property
    def device(self) -> torch.device:
        """The device that it is on, see `device_of`."""
        return device_of(self.model)

    @cached_property
    def classes(self) -> int:
        """The number of classes, see `classes_of`."""
        return classes_of(self.model, self._x, name=self.name) if self._classes is None else self._classes

    @cached_property
    def differentiable(self) -> bool:
        """True if its logits have a gradient with respect to the images, see `is_differentiable`."""
        return is_differentiable(self.model, self._x)


def device_of(model: nn.Module) -> torch.device:
    """Return the device that a model is on; the CPU, for one without parameters.

    Raises:
        UserError: it is on the meta device, without weights.

    Example:
        >>> device_of(nn.Flatten())
        device(type='cpu')
    """
    tensors: Iterator[Tensor] = itertools.chain(model.parameters(), model.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    if device.type == "meta":
        raise UserError("the model is on the meta device: it has no weights; build it on a device")
    return device


def classes_of(model: nn.Module, x: Float[Tensor, "n ..."], *, name: str = "the model") -> int:
    """Return the number of classes that a model tells apart, from its logits for one image.

    Args:
        model: maps images in [0, 1] to logits.
        x: images, of which the first is passed through the model.
        name: what the error calls the model.

    Raises:
        UserError: it returns no logits.

    Example:
        >>> classes_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2))
        2
    """
    if x.is_meta:
        raise UserError("images on the meta device have no values: load them on a device")
    with torch.no_grad(), frozen(model):
        logits = run_model(model, x[:1].to(device_of(model)), name=name)
    if not isinstance(logits, Tensor):
        raise UserError(f"{name} must return a tensor of logits, not {type(logits).__name__}")
    if logits.ndim != 2:
        raise UserError(f"{name} returns shape {tuple(logits.shape)} for one image; logits must be (1, classes)")
    return int(logits.shape[1])


def is_differentiable(model: nn.Module, x: Float[Tensor, "n ..."]) -> bool:
    """True if autograd sees how the logits of an image depend on it; False for a model that detaches or leaves torch.

    Example:
        >>> is_differentiable(nn.Flatten(), torch.rand(3, 1, 2, 2))
        True
    """
    with torch.enable_grad(), frozen(model):
        image = x[:1].to(device_of(model)).detach().requires_grad_(True)
        try:
            logits = model(image)
        except RuntimeError as error:
            if "numpy()" in str(error):  # torch refuses to hand over what has a gradient
                return False
            raise
        if not logits.requires_grad:
            return False
        try:
            # A quantised layer leaves a graph to the weights before it, and none to the images.
            return torch.autograd.grad(logits.sum(), image, allow_unused=True)[0] is not None
        except NotImplementedError:  # an operator without a derivative
            return False


_IMAGES = 8


@checked
def check_model(model: nn.Module, x: Float[Tensor, "b ..."], num_classes: int) -> None:
    """Run the model once on up to eight images and refuse it if what it returns are not finite logits of these classes.

    The forward pass is in evaluation mode and without gradients, so BatchNorm statistics stay as they are; every
    module's mode is put back afterwards, also after an exception. What its own code raises is passed on as it is.

    Args:
        model: any module from images to logits.
        x: at least one image in [0, 1], on the model's device and of its dtype.
        num_classes: the number of classes of the data.

    Raises:
        UserError: for an output that is not a tensor, not floating, not (B, num_classes), not finite, or probabilities.

    Example:
        >>> import torch
        >>> from uiat.models import build
        >>> check_model(build("small-cnn", num_classes=10, image_shape=(1, 8, 8)), torch.rand(4, 1, 8, 8), 10)
    """
    if len(x) == 0:
        raise UserError("no images were given to check the model with; give at least one")
    x = x[:_IMAGES]
    given = x.clone()  # a model that works in place must not change the caller's images
    with frozen(model), torch.no_grad():
        logits = run_model(model, given)
    if not torch.equal(given, x):
        raise UserError(
            "the model changes the images that it is given: let it work on a copy, x = x - 0.5 for x -= 0.5"
        )
    _check_logits(logits, x, num_classes)


@checked
def check_training(model: nn.Module, x: Float[Tensor, "b ..."], num_classes: int) -> None:
    """Run the model once in train mode, with a backward pass, and refuse it if it cannot be trained like this.

    Buffers, gradients, modes and torch's random state are put back afterwards.

    Args:
        model: any module from images to logits.
        x: at least one image in [0, 1], on the model's device and of its dtype.
        num_classes: the number of classes of the data.

    Raises:
        UserError: in train mode it returns something else than finite logits of these classes, or logits without a
            gradient.

    Example:
        >>> check_training(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2), 2)
    """
    x = x[:_IMAGES].clone()
    training, buffers = [m for m in model.modules() if m.training], [b.clone() for b in model.buffers()]
    set_aside = find_frozen_parts(model)
    devices = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            train_mode(model, set_aside)
            with logits_only(model):
                logits = run_model(model, x, when=" in train mode")
            _check_logits(logits, x, num_classes, when=" in train mode")
            trainable = [p for p in model.parameters() if p.requires_grad]
            if trainable and not logits.requires_grad:
                raise UserError(
                    "the model's logits have no gradient in train mode: look for .detach() or no_grad in it"
                )
            if trainable:
                torch.autograd.grad(logits.sum(), trainable, allow_unused=True)
    finally:
        for m in model.modules():
            m.training = False
        for m in training:
            m.training = True
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)


def _check_logits(logits: object, x: Tensor, num_classes: int, *, when: str = "") -> None:
    if not isinstance(logits, Tensor):
        raise UserError(f"the model returns a {type(logits).__name__}{when}, not a tensor of logits{hint_at(logits)}")
    if not logits.is_floating_point():
        raise UserError(f"the model returns {logits.dtype}; it must return logits, which are floating-point numbers")
    if logits.shape != (len(x), num_classes):
        raise UserError(_wrong_shape(tuple(logits.shape), (len(x), num_classes)))
    if not logits.isfinite().all():
        if not x.isfinite().all():
            raise UserError("the images hold values that are not finite (NaN or infinity)")
        raise UserError("the model returns NaN or infinite logits; look at its weights and its normalisation")
    if _are_probabilities(logits):
        raise UserError("the model returns probabilities; return logits (leave out the softmax at its end)")


def _wrong_shape(shape: tuple[int, ...], expected: tuple[int, int]) -> str:
    if len(shape) == 2 and shape[0] == expected[0]:
        return f"the model has {shape[1]} classes and the data {expected[1]}; build it with num_classes={expected[1]}"
    return f"the model returns shape {shape} for {expected[0]} images; it must be (batch, classes) = {expected}"


def _are_probabilities(logits: Tensor) -> bool:
    """Rows that are nowhere negative and sum to 1, to the accuracy of their dtype."""
    tolerance = 1e-3 if torch.finfo(logits.dtype).bits > 16 else 2e-2
    return bool((logits >= 0).all() and ((logits.double().sum(1) - 1).abs() < tolerance).all())
