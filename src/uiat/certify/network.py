"""Read a model as a graph of affine maps, ReLUs and sums, in float64: what linear bounds can be computed of."""

import copy
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from uiat.errors import UserError
from uiat.models.architectures import GlobalAveragePool
from uiat.models.classifier import Normalize
from uiat.models.inspect import device_of
from uiat.shapes import Float

Map = Callable[[Tensor], Tensor]
KNOWN = (
    "Conv2d, Linear, BatchNorm1d, BatchNorm2d, ReLU, AvgPool2d, AdaptiveAvgPool2d, Flatten, Identity, Dropout, sums, "
    "and the package's Normalize and GlobalAveragePool"
)


@dataclass(frozen=True)
class Node:
    """A value inside a network.

    Args:
        kind: what it is computed by.
        inputs: positions of the values that it is computed from.
        apply: of an affine map A z + b, the map itself, of a batch.
        widen: of an affine map, r -> |A| r, which takes the half widths of intervals to those of its values.
    """

    kind: Literal["input", "affine", "relu", "sum"]
    inputs: tuple[int, ...] = ()
    apply: Map | None = None
    widen: Map | None = None


@dataclass(frozen=True)
class Network:
    """A model as values in the order in which they are computed, the images first and the logits last.

    Args:
        nodes: the values.
        device: where it computes.
    """

    nodes: tuple[Node, ...]
    device: torch.device

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Return the logits of images, in float64."""
        values = [x.to(self.device, torch.float64)]
        for node in self.nodes[1:]:
            values.append(compute(node, [values[i] for i in node.inputs]))
        return values[-1]


def compute(node: Node, inputs: list[Tensor]) -> Tensor:
    """Compute a value from those that it reads.

    Example:
        >>> compute(Node("relu", (0,)), [torch.tensor([-1.0, 2.0])])
        tensor([0., 2.])
    """
    if node.kind == "relu":
        return inputs[0].relu()
    if node.kind == "sum":
        return inputs[0] + inputs[1]
    assert node.apply is not None
    return node.apply(inputs[0])


class _Tracer(fx.Tracer):  # torch.fx has no other way to say what a leaf is
    """Follows forward functions down to torch's own layers and to those that `_LAYERS` knows."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) in _LAYERS or super().is_leaf_module(module, name)


def trace_network(model: nn.Module) -> Network:
    """Read a model in eval mode as a network of affine maps, ReLUs and sums.

    Args:
        model: maps images (b, c, h, w) to logits; it is not changed.

    Raises:
        UserError: a layer or an operation that no bounds are known of, by its name; a forward function that decides by
            the values of its input.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> [node.kind for node in trace_network(model).nodes]
        ['input', 'affine', 'affine', 'relu', 'affine']
        >>> trace_network(nn.Sequential(nn.Flatten(), nn.Sigmoid()))
        Traceback (most recent call last):
        uiat.errors.UserError: no bounds are known of the layer 1 (Sigmoid); they are of Conv2d, Linear, ...
    """
    device = device_of(model)
    where = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    twin = copy.deepcopy(model).to(where, torch.float64).eval().requires_grad_(False)
    for name, module in twin.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise UserError(f"no bounds are known of the layer {name or type(module).__name__}: it has forward hooks")
    root = nn.Sequential(twin)
    _unwrap_methods(twin)
    try:
        graph = _Tracer().trace(root)
    except Exception as error:  # torch.fx runs the forward with stand-ins, which can end in any way
        reason = " ".join(str(error).split())
        raise UserError(
            f"no bounds are known of {type(model).__name__}: its forward cannot be read ({reason})"
        ) from None
    nodes, places = list[Node](), dict[fx.Node, int]()
    for each in graph.nodes:
        if each.op == "output":
            if not isinstance(each.args[0], fx.Node) or places[each.args[0]] != len(nodes) - 1:
                raise UserError(f"no bounds are known of {type(model).__name__}: its forward must end in its logits")
            break
        places[each] = len(nodes)
        nodes.append(_read(each, root, places))
    return Network(tuple(nodes), where)


def _unwrap_methods(model: nn.Module) -> None:
    """Take decorators off the methods: those that check shapes refuse the stand-ins for tensors.

    One that changes what is computed is found out when the network is compared with the model.
    """
    for module in model.modules():
        for name, method in inspect.getmembers(type(module), inspect.isfunction):
            if inspect.unwrap(method) is not method and (name == "forward" or not hasattr(nn.Module, name)):
                setattr(module, name, inspect.unwrap(method).__get__(module))


def _read(each: fx.Node, root: nn.Module, places: dict[fx.Node, int]) -> Node:
    """Return the node that an operation of the traced graph stands for."""
    inputs = tuple(places[arg] for arg in each.args if isinstance(arg, fx.Node))
    if each.op == "placeholder" and not places[each]:
        return Node("input")
    if each.op == "call_module":
        layer = root.get_submodule(str(each.target))
        node = _read_layer(layer, str(each.target).removeprefix("0."))
        return Node(node.kind, inputs, node.apply, node.widen)
    name = each.target if isinstance(each.target, str) else getattr(each.target, "__name__", str(each.target))
    plain = all(isinstance(arg, fx.Node) for arg in each.args) and not set(each.kwargs) - {"inplace"}
    if each.target in _SUMS and plain and len(inputs) == 2:
        return Node("sum", inputs)
    if each.target in _RELUS and plain:
        return Node("relu", inputs)
    if each.target in _FLATTENS and (each.args[1:] == (1,) or each.kwargs == {"start_dim": 1}):
        return Node("affine", inputs, nn.Flatten(), nn.Flatten())
    raise UserError(f"no bounds are known of the operation {name}; they are of {KNOWN}")


_SUMS = (operator.add, operator.iadd, torch.add, "add")
_RELUS = (torch.relu, nn.functional.relu, "relu", torch.relu_, "relu_")
_FLATTENS = (torch.flatten, "flatten")


def _read_layer(layer: nn.Module, name: str) -> Node:
    make = _LAYERS.get(type(layer))
    if make is None:
        raise UserError(f"no bounds are known of the layer {name} ({type(layer).__name__}); they are of {KNOWN}")
    node = make(layer)
    if node is None:
        raise UserError(f"no bounds are known of the layer {name}, {layer}: it does not take images one by one")
    return node


class Scale(nn.Module):
    """One multiplication and addition a channel.

    Args:
        scale: factor of each channel.
        shift: what is added to it.

    Example:
        >>> Scale(torch.tensor([2.0]), torch.tensor([1.0]))(torch.ones(1, 1, 1, 1)).item()
        3.0
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        """Scale and shift the channels."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * self.scale.view(shape) + self.shift.view(shape)


def _scale(scale: Tensor, shift: Tensor) -> Node:
    return Node("affine", (), Scale(scale, shift), Scale(scale.abs(), torch.zeros_like(shift)))


def _weighted(layer: Any) -> Node:
    """Return a convolution or a linear layer; its copy with the absolute weights and no bias widens intervals."""
    wide = copy.deepcopy(layer)
    wide.weight = nn.Parameter(layer.weight.abs(), requires_grad=False)
    wide.bias = None
    return Node("affine", (), layer, wide)


def _mean(layer: nn.Module) -> Node:
    """Return a layer of weights that are at least 0 and no bias, which widens intervals as it is."""
    return Node("affine", (), layer, layer)


def _norm(layer: Any) -> Node | None:
    if layer.running_mean is None:
        return None
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -layer.running_mean * scale
    return _scale(scale, shift if layer.bias is None else shift + layer.bias)


_LAYERS: dict[type[nn.Module], Callable[[Any], Node | None]] = {
    nn.Linear: _weighted,
    nn.Conv2d: _weighted,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.ReLU: lambda _: Node("relu"),
    nn.AvgPool2d: _mean,
    nn.AdaptiveAvgPool2d: _mean,
    nn.Flatten: lambda layer: _mean(layer) if layer.start_dim >= 1 else None,
    nn.Identity: _mean,
    nn.Dropout: lambda _: _mean(nn.Identity()),
    nn.Dropout2d: lambda _: _mean(nn.Identity()),
    GlobalAveragePool: _mean,
    Normalize: lambda layer: _scale(1 / layer.std, -layer.mean / layer.std),
}
