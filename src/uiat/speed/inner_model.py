"""The network as the inner problems of a step pass it: BatchNorm folded and weights cast, once a step."""

import copy
import logging
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from uiat.models.modes import frozen
from uiat.models.outputs import logits_only
from uiat.speed.compile import compile_model
from uiat.speed.folding import Norm, foldable_norms, replace_layer
from uiat.speed.incremental import have_equal_logits
from uiat.speed.tensor_cores import tensor_core_form

logger = logging.getLogger("uiat")
# Networks of these layers alone: what they compute depends on their tensors and plain values, which the copy follows.
# A class of one's own may hold anything; some of timm's keep what they computed of their weights in eval mode.
_KNOWN = (
    *("torch.nn.modules.", "torchvision.models.", "torchvision.ops."),
    *("uiat.models.architectures", "uiat.models.classifier", "uiat.models.libraries"),
)
_PLAIN = (bool, int, float, str, type(None))


@dataclass
class InnerModel:
    """Gives the network for the inner problems of a step: a copy in eval mode that follows the model's weights.

    Ten passes of an attack read weights that do not change between them, in eval mode. So each step, once, BatchNorm
    that reads the output of a convolution or linear layer is folded into it, weights are cast to the precision of the
    passes and, on a GPU, layers take the forms of `uiat.speed.tensor_cores`. Layers that stay as they are share their
    tensors with the model's. The gradients are the model's to rounding; in bf16 they are a little nearer to those of
    fp32, since one rounding is left out.

    The model itself is given where a copy could miss something: in it a class of one's own or of timm, a hook, a
    parametrisation; or where the copy's logits and gradients are not the model's.

    Args:
        model: maps images in [0, 1] to logits; it is left as it is.
        image_shape: (C, H, W).
        fold: make the copy.
        half: cast to bfloat16, for passes under autocast.
        tensor_cores: use the forms of `uiat.speed.tensor_cores`; by default on GPUs.
        compile: compile what is given.

    Example:
        >>> from uiat import models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> inner, x = InnerModel(model, (1, 8, 8)), torch.rand(2, 1, 8, 8)
        >>> with torch.no_grad():
        ...     _ = model.head.weight.mul_(2), model.body.stage1.norm.bias.add_(1)
        ...     torch.allclose(inner()(x), model.eval()(x), atol=1e-5)
        True
    """

    model: nn.Module
    image_shape: tuple[int, ...]
    fold: bool = True
    half: bool = False
    tensor_cores: bool | None = None
    compile: bool = False
    _parts: list[object] = field(default_factory=list, init=False, repr=False)
    _facts: list[object] = field(default_factory=list, init=False, repr=False)
    _layers: "list[PreparedLayer]" = field(default_factory=list, init=False, repr=False)
    _copy: nn.Module | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._follow()
        if self._copy is None:
            _ = self._plain  # that there is no compiler shows at once

    def __call__(self) -> nn.Module:
        """Return the network with the weights that the model has now; no host synchronisation."""
        self._follow()
        if self._copy is None:
            return self._plain
        for layer in self._layers:
            layer.refresh()
        return self._copy

    @cached_property
    def _plain(self) -> nn.Module:
        return compile_model(self.model) if self.compile else self.model

    def _follow(self) -> None:
        """Make the copy anew if the model has other layers or tensors than before."""
        if not self.fold:
            return
        parts, facts = _parts_of(self.model)
        same = len(parts) == len(self._parts) and all(a is b for a, b in zip(parts, self._parts, strict=True))
        if not same or facts != self._facts:
            self._parts, self._facts, self._layers, self._copy = parts, facts, [], None
            if all(map(_is_known, self.model.modules())):
                self._make()

    def _make(self) -> None:
        some = next(self.model.parameters())
        on = some.device.type == "cuda" if self.tensor_cores is None else self.tensor_cores
        if not (self.half or on or any(isinstance(m, Norm) for m in self.model.modules())):
            return
        example = torch.rand(2, *self.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        try:
            _check_copy(self.model, example, tensor_cores=on)
            copied, layers = _prepared_copy(self.model, example.to(some), half=self.half, tensor_cores=on)
            with torch.no_grad(), torch.autocast(some.device.type, torch.bfloat16, enabled=self.half):
                copied(example.to(some))
        # This is about speed alone: what is wrong with the model shows where it is used.
        except Exception as error:
            logger.debug("inner problems pass the model itself: %s", error)
            return
        if layers:
            self._copy, self._layers = compile_model(copied) if self.compile else copied, layers


@dataclass
class PreparedLayer:
    """A layer of the copy, with the layer of the model that it stands for and the BatchNorm folded into it."""

    source: nn.Conv2d | nn.Linear
    norm: Norm | None
    target: nn.Module

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the weights and the statistics over."""
        weight, bias = self.folded()
        for name, value in (("weight", weight), ("bias", bias)):
            if value is not None:
                place = self.target.get_parameter(name)
                # A padded layer's further channels are zero, and stay so.
                (place[:, : value.shape[1]] if value.ndim == 4 else place).copy_(value)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of the layer with the BatchNorm behind it."""
        source, norm = self.source, self.norm
        if norm is None:
            return source.weight, source.bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        fuse = fuse_linear_bn_weights if isinstance(source, nn.Linear) else fuse_conv_bn_weights
        weight, bias = source.weight, source.bias
        return fuse(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)


def _parts_of(model: nn.Module) -> tuple[list[object], list[object]]:
    """Return what a copy depends on: modules and tensors, which have to be the same ones, and facts about them."""
    modules, tensors = list(model.modules()), [*model.parameters(), *model.buffers()]
    return [*modules, *tensors], [*map(_facts_of, modules), *((t.dtype, t.device) for t in tensors)]


def _facts_of(module: nn.Module) -> tuple[object, ...]:
    """Return a module's class, whether it is hooked, and its plain values, such as the eps of a norm."""
    values = ((k, v) for k, v in vars(module).items() if k != "training" and isinstance(v, (*_PLAIN, tuple)))
    return type(module), _is_hooked(module), "forward" in vars(module), *values


def _is_known(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_KNOWN) and not _is_hooked(module) and "forward" not in vars(module)


def _is_hooked(module: nn.Module) -> bool:
    """True if there are hooks other than the one that the package itself sets now and then, which no copy needs."""
    if any((module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)):
        return True
    return any(hook.__module__ != logits_only.__module__ for hook in module._forward_hooks.values())


def _check_copy(model: nn.Module, example: Tensor, *, tensor_cores: bool) -> None:
    """Hold a copy's logits and input gradients against the model's.

    In float64, in which nothing but a fault is above the tolerance, and on a CPU, which has it; with statistics as
    after a training, since a new BatchNorm does nothing that would be missed.

    Raises:
        ValueError: they differ.
    """
    exact, draws = copy.deepcopy(model).cpu().double().eval(), torch.Generator().manual_seed(0)
    for norm in [m for m in exact.modules() if isinstance(m, Norm)]:
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            if tensor is not None:
                tensor.detach().copy_(torch.rand(tensor.shape, generator=draws) + 0.5)
    copied, _ = _prepared_copy(exact, example, half=False, tensor_cores=tensor_cores)
    for found, right in zip(_answers(copied, example), _answers(exact, example), strict=True):
        if not have_equal_logits(found, right):
            raise ValueError("its logits or gradients differ from the model's")


def _answers(model: nn.Module, example: Tensor) -> tuple[Tensor, Tensor]:
    x = example.clone().requires_grad_()
    with frozen(model), torch.enable_grad():
        logits = model(x)
        return logits.detach(), torch.autograd.grad(logits.logsumexp(dim=1).sum(), x)[0]


def _prepared_copy(
    model: nn.Module, example: Tensor, *, half: bool, tensor_cores: bool
) -> tuple[nn.Module, list[PreparedLayer]]:
    """Copy a model, in eval mode, with new layers for those that change and the model's own tensors for the rest."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared).eval()
    copied._forward_hooks.clear()
    sources = dict(zip(copied.modules(), model.modules(), strict=True))
    with frozen(copied):
        norms = {layer: norm for norm, layer in foldable_norms(copied, example) if layer is not None}
    prepared = list[PreparedLayer]()
    for layer in [m for m in sources if type(m) in (nn.Conv2d, nn.Linear)]:
        norm = norms.get(layer)
        form = tensor_core_form(layer) if tensor_cores else None
        if form is None and norm is None and not half:
            continue
        target = _with_own_weights(form or copy.deepcopy(layer), bias=norm is not None, half=half)
        replace_layer(copied, layer, target)
        if norm is not None:
            replace_layer(copied, norm, nn.Identity())
        prepared.append(PreparedLayer(sources[layer], norm and sources[norm], target))  # type: ignore[arg-type]
    for each in prepared:
        each.refresh()
    return copied, prepared


def _with_own_weights(layer: nn.Module, *, bias: bool, half: bool) -> nn.Module:
    """Give a copied layer frozen weights of its own, in half precision if asked, with a bias if it is to have one."""
    weight = layer.get_parameter("weight")
    if bias and layer.bias is None:
        layer.bias = nn.Parameter(weight.new_zeros(len(weight)))
    # Autocast casts float32 alone.
    return layer.requires_grad_(False).to(torch.bfloat16 if half and weight.dtype == torch.float32 else weight.dtype)
