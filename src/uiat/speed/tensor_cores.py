"""Forms of a convolution that compute the same and let a GPU use its matrix units."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from uiat.shapes import Float

# Matrix units take channels in groups of eight 16-bit values; of an image's three they take none.
GROUP = 8


class PaddedConv(nn.Module):
    """A convolution of fewer than eight channels, as one of eight, of which the further ones are zero.

    Args:
        layer: the convolution; its weights are copied.

    Example:
        >>> layer, x = nn.Conv2d(3, 16, 3, padding=1), torch.rand(2, 3, 8, 8)
        >>> torch.allclose(PaddedConv(layer)(x), layer(x), atol=1e-6)
        True
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.more = GROUP - layer.in_channels
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.weight = nn.Parameter(functional.pad(layer.weight.detach(), (0, 0, 0, 0, 0, self.more)))
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d g v"]:
        """Convolve."""
        if x.is_contiguous(memory_format=torch.channels_last):
            # Padding the last axis keeps the channels side by side, in which order a GPU reads them.
            x = functional.pad(x.permute(0, 2, 3, 1), (0, self.more)).permute(0, 3, 1, 2)
        else:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.more))
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)


class StridedPointwise(nn.Module):
    """A strided convolution of one pixel, as a matrix product of the pixels that it reads.

    cuDNN may take a kernel without matrix units for it (`uiat.speed.cudnn`), and a product is what it is.

    Args:
        layer: the convolution; its weights are copied.

    Example:
        >>> layer, x = nn.Conv2d(16, 32, 1, stride=2), torch.rand(2, 16, 8, 8)
        >>> torch.allclose(StridedPointwise(layer)(x), layer(x), atol=1e-6)
        True
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.rows, self.columns = layer.stride
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d g v"]:
        """Multiply."""
        pixels = x[:, :, :: self.rows, :: self.columns].permute(0, 2, 3, 1)
        return functional.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def tensor_core_form(layer: nn.Module) -> nn.Module | None:
    """Return the form of a layer that suits matrix units better, with copied weights; None if there is none.

    Example:
        >>> tensor_core_form(nn.Conv2d(64, 128, 3)) is None
        True
    """
    # Padding may also be a word, or be made of values other than zero.
    if type(layer) is not nn.Conv2d or layer.groups != 1 or layer.padding_mode != "zeros":
        return None
    if layer.in_channels < GROUP and not isinstance(layer.padding, str):
        return PaddedConv(layer)
    if layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.padding in ((0, 0), "valid"):
        return StridedPointwise(layer)
    return None
