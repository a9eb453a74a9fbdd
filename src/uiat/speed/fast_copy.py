"""Frozen inference copy of a model for the many passes of an attack: BatchNorm folded, channels last, passes counted.

An attack makes thousands of passes through one model that does not change, so work that is done once an evaluation
pays. The copy only guides the attack: its examples are verified by the model itself, so a fault in the copy can cost
an attack strength, and nothing else.
"""

import copy
import logging
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from uiat.models.modes import frozen
from uiat.shapes import Float
from uiat.speed.folding import CONVOLUTIONS, Norm, foldable_norms, replace_layer
from uiat.speed.incremental import Incremental, have_equal_logits
from uiat.speed.malloc import keep_memory

logger = logging.getLogger("uiat")

# On a CPU, bytes of all layer outputs of a batch: beyond, nothing is gained, and they do not fit into the caches.
CPU_BYTES = 64 * 2**20
CPU_LEAST = 16  # images of a batch; with fewer, the work a call is too little


class CountingModel:
    """A model that counts the images of its forward and its backward passes.

    Args:
        model: maps images (B, ...) to logits (B, K).
        example: a few images, for a model that nothing else uses: then passes on images that changed in a window can
            be cheaper, see `incremental`.

    Example:
        >>> model = CountingModel(nn.Linear(4, 2))
        >>> x = torch.rand(3, 4, requires_grad=True)
        >>> model(x).sum().backward()
        >>> model.forward, model.backward
        (3, 3)
    """

    def __init__(self, model: Callable[[Tensor], Tensor], *, example: Tensor | None = None) -> None:
        self.model, self.example = model, example
        self.forward = 0
        self.backward = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of images, and count these; again when a gradient comes back through the logits."""
        self.forward += len(x)
        logits = self.model(x)
        if x.requires_grad and logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    @cached_property
    def incremental(self) -> Incremental | None:
        """The model for images that changed in a window, its passes counted too; None if no layer can be cached.

        On a CPU alone: on other devices passes on small crops are no cheaper.
        """
        if self.example is None or self.example.device.type != "cpu" or not isinstance(self.model, nn.Module):
            return None
        model = Incremental(self.model, self.example, self._count_forward)
        return model if model.layers else None

    def _count_forward(self, count: int) -> None:
        self.forward += count

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


class Affine(nn.Module):
    """BatchNorm in eval mode as one multiplication and addition a channel, in a single pass over the data.

    Args:
        norm: the BatchNorm layer, with running statistics.

    Example:
        >>> norm = nn.BatchNorm2d(3).eval()
        >>> x = torch.rand(2, 3, 4, 4)
        >>> torch.allclose(Affine(norm)(x), norm(x), atol=1e-6)
        True
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.detach()
        shift = -norm.running_mean * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift if norm.bias is None else shift + norm.bias.detach())

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        """Scale and shift the channels."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape))


def make_fast_copy(model: nn.Module, example: Float[Tensor, "b ..."], *, compile: bool = False) -> CountingModel:
    """Make a faster copy of a model for the passes of an attack; the model itself is used if no copy agrees with it.

    The copy is frozen and in eval mode: BatchNorm that reads the output of a convolution or linear layer is folded into
    it, any other becomes one multiplication and addition, and convolutions of images work channels-last. Which layer
    reads which is read off a forward pass of the example. If the copy's logits differ from the model's by more than a
    tolerance (`uiat.speed.incremental.have_equal_logits`), an unfolded copy is tried, and if that differs too (a model
    that answers at random, say), or if the model cannot be copied, the model itself is used. On a CPU the process keeps
    its memory from then on (`uiat.speed.malloc`).

    Args:
        model: maps images in [0, 1] to logits; left as it is.
        example: a few images, on the model's device.
        compile: compile the copy. It has to repay some minute of compilation, which on a CPU it hardly does: it makes
            passes in batches of 64 a few percent faster. Images are then best given in batches of one size.

    Returns:
        The copy, which counts its passes.

    Example:
        >>> from uiat import models
        >>> model = models.build("preact-resnet8", num_classes=10, image_shape=(3, 32, 32), width=4).eval()
        >>> x = torch.rand(2, 3, 32, 32)
        >>> fast = make_fast_copy(model, x)
        >>> torch.allclose(fast(x), model(x), atol=1e-4), fast.forward
        (True, 2)
    """
    keep_memory(example.device)
    example = example[:4].detach()  # so few that they always fit into memory at once
    with torch.no_grad(), frozen(model):
        logits = model(example)
    for make in (_folded_copy, _frozen_copy):
        try:
            with torch.no_grad():
                faster = make(model, example)
                same = have_equal_logits(faster(example), logits)
        # The model is its user's: whatever its copy or a layer of it raises, the model itself will do.
        except Exception as error:
            logger.debug("no %s of the model: %s", make.__name__.strip("_").replace("_", " "), error)
            continue
        if same:
            return CountingModel(_compile(faster, example) if compile else faster, example=example)
    return CountingModel(model)


def fastest_batch(model: nn.Module, example: Float[Tensor, "b ..."], *, at_most: int = 500) -> int:
    """Return the batch size at which a CPU is fastest, or the largest allowed one on other devices.

    Args:
        model: the model.
        example: images, of which one is passed through the model to measure its layer outputs.
        at_most: largest batch size that may be returned.

    Example:
        >>> from uiat import models
        >>> model = models.build("preact-resnet8", num_classes=10, image_shape=(3, 32, 32), width=16)
        >>> fastest_batch(model, torch.rand(1, 3, 32, 32))
        70
    """
    if example.device.type != "cpu":
        return at_most
    size = 0

    def note(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal size
        if isinstance(output, Tensor):
            size += output.nbytes

    # TorchScript takes no hooks: what is inside it counts nothing, and the batch is as large as it may be.
    leaves = [m for m in model.modules() if not any(m.children()) and not isinstance(m, torch.jit.ScriptModule)]
    hooks = [m.register_forward_hook(note) for m in leaves]
    try:
        with torch.no_grad(), frozen(model):
            model(example[:1])
    except Exception as error:  # this is about speed alone: what is wrong with the model shows where it is used
        logger.debug("no measure of the model's layers: %s", error)
        return at_most
    finally:
        for hook in hooks:
            hook.remove()
    return min(max(CPU_BYTES // max(size, 1), CPU_LEAST), at_most)


def _frozen_copy(model: nn.Module, example: Tensor) -> nn.Module:
    """Copy a model, frozen and in eval mode, channels-last if it takes images (B, C, H, W)."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    if example.ndim == 4:
        copied = copied.to(memory_format=torch.channels_last)
    return copied


def _folded_copy(model: nn.Module, example: Tensor) -> nn.Module:
    """Copy a model, frozen and in eval mode, without its BatchNorm layers."""
    copied = _frozen_copy(model, example)
    for norm, layer in foldable_norms(copied, example):
        if isinstance(layer, nn.Linear):
            new: nn.Module = fuse_linear_bn_eval(layer, norm)
        elif isinstance(layer, CONVOLUTIONS):
            new = fuse_conv_bn_eval(layer, norm)
        else:
            replace_layer(copied, norm, Affine(norm))
            continue
        replace_layer(copied, layer, new)
        replace_layer(copied, norm, nn.Identity())
    return _frozen_copy(copied, example)


def _compile(model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """Compile a model for batches of any size; return it as it is if that fails."""
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=True)
    try:
        with torch.no_grad():
            compiled(example)
        with torch.enable_grad():
            compiled(example.clone().requires_grad_())
    # No compiler on this machine, or an operation that it does not know.
    except Exception as error:
        logger.debug("the model is not compiled: %s", error)
        return model
    return compiled
