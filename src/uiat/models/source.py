"""Write a built-in model as a plain PyTorch module: source that needs torch and safetensors alone.

The source is generated, never executed here: whoever loads the exported folder runs it.
"""

from torch import nn

from uiat.errors import UserError
from uiat.models.architectures import BasicBlock, GlobalAveragePool, PreActBlock
from uiat.models.classifier import Classifier, Normalize

# The layers of torch whose description is the argument list that makes them again.
_PLAIN = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.BatchNorm1d,
    nn.Linear,
    nn.ReLU,
    nn.SiLU,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)
_HEAD = '''"""A robust image classifier in plain PyTorch: images (B, C, H, W) in [0, 1] to logits (B, K)."""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class Normalize(nn.Module):
    """(x - mean) / std per channel."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, x):
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)


class GlobalAveragePool(nn.Module):
    """The mean over height and width."""

    def forward(self, x):
        return x.mean((2, 3))


class Layers(nn.Module):
    """A module with named layers; None for one that it does without."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


class BasicBlock(Layers):
    """Two convolutions and a shortcut, activation after the sum (He et al. 2016, arXiv:1512.03385)."""

    def forward(self, x):
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(out + (x if self.shortcut is None else self.shortcut(x)))


class PreActBlock(Layers):
    """BatchNorm and activation before each convolution (He et al. 2016, arXiv:1603.05027)."""

    def forward(self, x):
        out = self.act(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(self.act(self.bn2(self.conv1(out)))) + residual


class Classifier(Layers):
    """Normalise, then the body, then a linear head."""

    def features(self, x):
        return self.body(self.normalize(x))

    def forward(self, x):
        return self.head(self.features(x))


def make():
    """Return the model with new weights."""
    return '''
_TAIL = '''


def load(weights=Path(__file__).with_name("model.safetensors")):
    """Return the model with its trained weights, in eval mode."""
    model = make()
    model.load_state_dict(load_file(weights))
    return model.eval()
'''


def has_source(model: nn.Module) -> bool:
    """True for a model whose layers are all known here: a built-in one.

    Example:
        >>> has_source(nn.Linear(1, 1)), has_source(nn.LSTM(1, 1))
        (True, False)
    """
    known = (*_PLAIN, nn.Sequential, BasicBlock, PreActBlock, GlobalAveragePool, Classifier, Normalize)
    return all(type(module) in known for module in model.modules())


def to_source(model: nn.Module) -> str:
    """Return Python source that makes the model and loads its weights from model.safetensors.

    Raises:
        UserError: the model has a layer that is not known here, which is named.

    Example:
        >>> from uiat.models import build
        >>> source = to_source(build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4))
        >>> source.splitlines()[0]
        '\"\"\"A robust image classifier in plain PyTorch: images (B, C, H, W) in [0, 1] to logits (B, K).\"\"\"'
    """
    return f"{_HEAD}{_expression(model, 1)}{_TAIL}"


def _expression(module: nn.Module | None, depth: int) -> str:
    """Return the expression that makes a module, its arguments a line each."""
    if module is None:
        return "None"
    kind = type(module)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and kind in _PLAIN:
        # By hand: the description of a newer torch names arguments that an older one does not take.
        return f"nn.{kind.__name__}({module.num_features}, eps={module.eps!r}, momentum={module.momentum!r})"
    if kind in _PLAIN:
        return f"nn.{kind.__name__}({module.extra_repr()})"
    if isinstance(module, Normalize):
        return f"Normalize({module.mean.numel()})"
    if kind is GlobalAveragePool:
        return "GlobalAveragePool()"
    inner, outer = "    " * (depth + 1), "    " * depth
    if kind is nn.Sequential:
        rows = [f"{inner}    {name}={_expression(part, depth + 2)},\n" for name, part in module.named_children()]
        if all(name.isdigit() for name, _ in module.named_children()):
            rows = [f"{inner}{_expression(part, depth + 1)},\n" for part in module.children()]
            return f"nn.Sequential(\n{''.join(rows)}{outer})"
        return f"nn.Sequential(\n{inner}OrderedDict(\n{''.join(rows)}{inner})\n{outer})"
    if kind in (BasicBlock, PreActBlock, Classifier):
        parts = dict(module.named_children()) | ({"shortcut": None} if _lacks_shortcut(module) else {})
        rows = [f"{inner}{name}={_expression(part, depth + 1)},\n" for name, part in parts.items()]
        return f"{kind.__name__}(\n{''.join(rows)}{outer})"
    raise UserError(f"the layer {kind.__module__}.{kind.__name__} cannot be written as source: export a program")


def _lacks_shortcut(module: nn.Module) -> bool:
    return getattr(module, "shortcut", module) is None
