"""Which BatchNorm layers of a model can be folded into the layer before them, and the means to exchange layers."""

from collections import Counter

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from uiat.shapes import Float

# Exactly these: a subclass, such as a parametrised layer, may compute something else.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def foldable_norms(model: nn.Module, example: Float[Tensor, "b ..."]) -> list[tuple[Norm, nn.Module | None]]:
    """Find each BatchNorm that can go, with the layer to fold it into: the only one whose output it reads, or None.

    Read from the autograd graph of one forward pass, so whatever `forward` does is allowed for. A layer that is used
    more than once stays, and so does one with hooks of its own. A reader without a gradient goes unseen, and shows in
    the logits.

    Args:
        model: a model in eval mode, its parameters frozen.
        example: a few images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
        >>> [layer for _, layer in foldable_norms(model.eval().requires_grad_(False), torch.rand(1, 1, 8, 8))]
        [Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1)), None]
    """
    watched = [m for m in model.modules() if type(m) in (*CONVOLUTIONS, nn.Linear, *_NORMS) and not has_hooks(m)]
    calls = Counter[nn.Module]()
    # The node of the graph that made a tensor tells which layer a norm reads: the one whose output it made.
    layers: dict[Node | None, nn.Module] = {}
    norms: list[tuple[Norm, Node | None, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, _NORMS):
            norms.append((module, inputs[0].grad_fn, inputs[0].ndim))
        else:
            layers[output.grad_fn] = module

    hooks = [m.register_forward_hook(note) for m in watched]
    try:
        with torch.enable_grad():
            # Parameters are frozen, so the graph begins at the images: nodes exist only for what depends on them.
            logits = model(example.clone().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    readers, result = _count_readers(logits.grad_fn), list[tuple[Norm, nn.Module | None]]()
    for norm, node, dimensions in norms:
        # With a second reader, such as a shortcut, the layer's own output is needed as it is.
        layer = layers.get(node) if readers[node] == 1 else None
        fits = layer is not None and calls[layer] == 1
        # A linear layer ends in its features, and a norm of more dimensions reads the second as channels.
        if isinstance(layer, nn.Linear) and (dimensions != 2 or norm.weight is None):
            fits = False
        if calls[norm] == 1 and norm.running_mean is not None:
            result.append((norm, layer if fits else None))
    return result


def _count_readers(last: Node | None) -> Counter[Node | None]:
    """Count the readers of each node of a graph, walking back from its last one."""
    readers, left, seen = Counter[Node | None](), [last], {last}
    while left:
        node = left.pop()
        following = [] if node is None else [n for n, _ in node.next_functions]
        readers.update(following)
        left += [n for n in dict.fromkeys(following) if n not in seen]
        seen.update(following)
    return readers


def has_hooks(module: nn.Module) -> bool:
    """True if calling the module calls further functions.

    Example:
        >>> has_hooks(nn.ReLU())
        False
    """
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def replace_layer(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a layer under every name that it has, in place.

    Example:
        >>> model = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> replace_layer(model, model[0], nn.SiLU())
        >>> model[0]
        SiLU()
    """
    for parent in model.modules():
        for name in [name for name, child in parent._modules.items() if child is old]:
            setattr(parent, name, new)
