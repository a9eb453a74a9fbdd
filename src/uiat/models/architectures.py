"""The bodies of the built-in models: normalised images (B, C, H, W) to features (B, D), without the last layer."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uiat.shapes import Float


class GlobalAveragePool(nn.Module):
    """The mean over height and width, (B, D, H, W) -> (B, D), for any image size.

    Example:
        >>> import torch
        >>> GlobalAveragePool()(torch.ones(2, 5, 4, 4)).shape
        torch.Size([2, 5])
    """

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
        """Average the feature maps of each image."""
        return x.mean((2, 3))


def activation_layer(name: str) -> nn.Module:
    """Return a new activation layer, "relu" or "silu".

    Every one of them follows a BatchNorm or a sum, neither of which keeps its output for the backward pass, so ReLU may
    overwrite it; SiLU needs its input for its own gradient and does not.

    Example:
        >>> activation_layer("relu")
        ReLU(inplace=True)
    """
    return nn.SiLU() if name == "silu" else nn.ReLU(inplace=True)


def conv3x3(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution with padding 1 and no bias, because a BatchNorm follows.

    Example:
        >>> conv3x3(3, 8).weight.shape
        torch.Size([8, 3, 3, 3])
    """
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _norm_act(*, activation: str, **layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(**layers, act=activation_layer(activation)))


def _conv_norm_act(inputs: int, outputs: int, *, activation: str, stride: int = 1) -> nn.Sequential:
    conv = conv3x3(inputs, outputs, stride=stride)
    return _norm_act(conv=conv, norm=nn.BatchNorm2d(outputs), activation=activation)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, activation after the sum (He et al. 2016, arXiv:1512.03385).

    Example:
        >>> import torch
        >>> BasicBlock(4, 8, stride=2, activation="relu")(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act = activation_layer(activation)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        y: Tensor = self.act(out + (x if self.shortcut is None else self.shortcut(x)))
        return y


class PreActBlock(nn.Module):
    """A residual block with BatchNorm and activation before each convolution (He et al. 2016, arXiv:1603.05027).

    Where the shape changes, the 1x1 shortcut reads the activated input, as in Wide ResNets and PreActResNet-18.

    Example:
        >>> import torch
        >>> PreActBlock(4, 8, stride=2, activation="relu")(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.act = activation_layer(activation)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        out = self.act(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(out)
        y: Tensor = self.conv2(self.act(self.bn2(self.conv1(out)))) + residual
        return y


def _stages(
    block: type[BasicBlock] | type[PreActBlock], inputs: int, width: int, *, blocks: Sequence[int], activation: str
) -> tuple["OrderedDict[str, nn.Module]", int]:
    """Return the residual stages, of widths width, 2 width, 4 width, ..., and the last width.

    Each stage after the first halves the image.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for i, count in enumerate(blocks):
        outputs, layers = width * 2**i, []
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            layers.append(block(inputs, outputs, stride=stride, activation=activation))
            inputs = outputs
        stages[f"stage{i + 1}"] = nn.Sequential(*layers)
    return stages, inputs


def small_cnn(channels: int, width: int, *, activation: str) -> tuple[nn.Module, int]:
    """Build four convolutions of widths w, w, 2w, 4w, two of them of stride 2; about 100k parameters at w = 32.

    Returns the body and the number of its features.

    Example:
        >>> small_cnn(3, 32, activation="relu")[1]
        128
    """
    body: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = channels
    # Only the first convolution sees the full image, and the widest the smallest: the cheapest 100k on a CPU.
    for i, (outputs, stride) in enumerate([(width, 1), (width, 2), (2 * width, 1), (4 * width, 2)]):
        body[f"stage{i + 1}"] = _conv_norm_act(inputs, outputs, stride=stride, activation=activation)
        inputs = outputs
    body["pool"] = GlobalAveragePool()
    return nn.Sequential(body), inputs


def mnist_cnn(channels: int, width: int, *, activation: str) -> tuple[nn.Module, int]:
    """Build two 4x4 convolutions of stride 2 and a hidden layer on their 7x7 map; cheap on 28x28 images.

    A hidden layer that sees positions learns under MNIST's large radius many times faster than an average over them.
    Returns the body and the number of its features.

    Example:
        >>> mnist_cnn(1, 16, activation="relu")[1]
        128
    """
    side, features = 7, 8 * width
    body: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = channels
    for i, outputs in enumerate((width, 2 * width)):
        conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        body[f"stage{i + 1}"] = _norm_act(conv=conv, norm=nn.BatchNorm2d(outputs), activation=activation)
        inputs = outputs
    body["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten())  # nothing to average at 28x28
    linear = nn.Linear(inputs * side * side, features, bias=False)
    body["hidden"] = _norm_act(linear=linear, norm=nn.BatchNorm1d(features), activation=activation)
    return nn.Sequential(body), features


def resnet(channels: int, width: int, *, blocks: Sequence[int], activation: str) -> tuple[nn.Module, int]:
    """Build a ResNet with the CIFAR stem: one 3x3 convolution of stride 1 and no pooling (arXiv:1512.03385).

    Returns the body and the number of its features. `blocks` has the blocks of each stage; ResNet-18 is (2, 2, 2, 2).

    Example:
        >>> resnet(3, 16, blocks=(1, 1), activation="relu")[1]
        32
    """
    body: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv_norm_act(channels, width, activation=activation))
    stages, features = _stages(BasicBlock, width, width, blocks=blocks, activation=activation)
    body.update(stages)
    body["pool"] = GlobalAveragePool()
    return nn.Sequential(body), features


def preact_resnet(
    channels: int, width: int, *, blocks: Sequence[int], activation: str, stem: int | None = None
) -> tuple[nn.Module, int]:
    """Build a pre-activation ResNet with the CIFAR stem and a last BatchNorm and activation (arXiv:1603.05027).

    Returns the body and the number of its features. With `stem=16` and three equal stages of n blocks it is the Wide
    ResNet of depth 6n + 4, without dropout (Zagoruyko and Komodakis 2016, arXiv:1605.07146); `stem` defaults
    to the width of the first stage.

    Example:
        >>> preact_resnet(3, 24, blocks=(1, 1, 1), activation="relu")[1]
        96
    """
    stem = width if stem is None else stem
    body: OrderedDict[str, nn.Module] = OrderedDict(stem=conv3x3(channels, stem))
    stages, features = _stages(PreActBlock, stem, width, blocks=blocks, activation=activation)
    body.update(stages)
    body["norm"] = nn.BatchNorm2d(features)
    body["act"] = activation_layer(activation)
    body["pool"] = GlobalAveragePool()
    return nn.Sequential(body), features


@torch.no_grad()
def initialise(body: nn.Module) -> None:
    """Initialise every convolution by its fan-out, in place (He et al. 2015, arXiv:1502.01852, equation 14).

    BatchNorm starts at weight 1 and bias 0, which is PyTorch's own default.

    Example:
        >>> layer = conv3x3(8, 32)
        >>> initialise(layer)
        >>> bool(abs(layer.weight.std() / (2 / (32 * 9)) ** 0.5 - 1) < 0.1)
        True
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
