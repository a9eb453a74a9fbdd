"""Images and perturbations as pictures that a page can hold in itself."""

import base64
import struct
import zlib

import torch
from torch import Tensor


def png(image: Tensor) -> bytes:
    r"""An image (C, H, W) in [0, 1], of one or three channels, as a PNG of 8 bits a channel.

    Other numbers of channels are shown as the mean over them, in grey.

    Example:
        >>> png(torch.zeros(1, 2, 2))[:4]
        b'\x89PNG'
    """
    if len(image) not in (1, 3):
        image = image.mean(dim=0, keepdim=True)
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    height, width, channels = pixels.shape
    # Each row of a PNG begins with the number of its filter; 0 is none.
    rows = b"".join(b"\0" + row.numpy().tobytes() for row in pixels.cpu())
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def data_uri(image: Tensor) -> str:
    """The picture as an address that needs no network.

    Example:
        >>> data_uri(torch.zeros(1, 2, 2))[:22]
        'data:image/png;base64,'
    """
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def magnified(delta: Tensor) -> tuple[Tensor, float]:
    """A perturbation stretched to the whole range, no change in the middle of it, and by how much it was stretched.

    Example:
        >>> shown, factor = magnified(torch.tensor([[[0.1, -0.05]]]))
        >>> shown.flatten().tolist(), round(factor, 3)
        ([1.0, 0.25], 5.0)
    """
    largest = float(delta.abs().max()) if delta.numel() else 0.0
    factor = 0.5 / largest if largest > 0 else 1.0
    return 0.5 + delta * factor, factor
