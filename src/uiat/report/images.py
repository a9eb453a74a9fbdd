"""Images in a report: PNG files, adversarial examples, universal perturbations."""

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uiat.formatting import threat_text
from uiat.report.groups import Group


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


@dataclass(frozen=True)
class Sample:
    """A test image as it is, attacked, and moved towards its class.

    Args:
        index: its place in the test set.
        label: its class.
        images: (C, H, W) in [0, 1], by "natural", "adversarial" and "inverse".
        predicted: the class predicted for each of them, and its probability.

    Example:
        >>> Sample(0, 3, {}, {"natural": (3, 0.9)}).predicted["natural"]
        (3, 0.9)
    """

    index: int
    label: int
    images: Mapping[str, Tensor]
    predicted: Mapping[str, tuple[int, float]]


@dataclass(frozen=True)
class Samples:
    """Such images of one run, and how its model confuses classes under attack.

    Args:
        classes: their names.
        attack: how the adversarial images were made, in words.
        inverse: how the inverse images were made, in words.
        shown: the images to show.
        confusion: images by true class (rows) and predicted class (columns), attacked.

    Example:
        >>> Samples(("cat", "dog"), "PGD", "PGD", (), ((3, 1), (0, 4))).n
        8
    """

    classes: tuple[str, ...]
    attack: str
    inverse: str
    shown: Sequence[Sample]
    confusion: Sequence[Sequence[int]]

    @property
    def n(self) -> int:
        """Images behind the confusion."""
        return sum(map(sum, self.confusion))


def class_names(folder: Path, samples: Mapping[Path, Samples], count: int) -> list[str]:
    """The names of a run's classes, or their numbers where only its files are known.

    Example:
        >>> class_names(Path("a"), {}, 2)
        ['0', '1']
    """
    known = samples.get(folder)
    return list(known.classes) if known is not None and len(known.classes) == count else [str(i) for i in range(count)]


KINDS = ("natural", "adversarial", "inverse")


def galleries(groups: Sequence[Group], samples: Mapping[Path, Samples]) -> list[dict[str, Any]]:
    """Images as they are, attacked and moved towards their class, with what the model says of each.

    Example:
        >>> galleries([], {})
        []
    """
    found = []
    for group in groups:
        known = samples.get(group.first.folder)
        if known is not None and known.shown:
            cards = [_card(sample, known.classes) for sample in known.shown]
            found.append({"label": group.label, "attack": known.attack, "inverse": known.inverse, "cards": cards})
    return found


def _card(sample: Sample, names: Sequence[str]) -> dict[str, Any]:
    pictures = []
    for kind in (kind for kind in KINDS if kind in sample.images):
        label, confidence = sample.predicted[kind]
        says = f"{names[label]}, {100 * confidence:.0f}\u00a0%"  # a number and its unit stay on one line
        picture = {"kind": kind, "src": data_uri(sample.images[kind]), "says": says, "right": label == sample.label}
        if kind != "natural":
            shown, factor = magnified(sample.images[kind] - sample.images["natural"])
            picture |= {"delta": data_uri(shown), "factor": f"×{factor:.0f}"}
        pictures.append(picture)
    return {"index": sample.index, "name": names[sample.label], "pictures": pictures}


def universals(groups: Sequence[Group], samples: Mapping[Path, Samples]) -> list[dict[str, Any]]:
    """The universal inverse perturbations of the first run of each group, each stretched to be seen.

    Example:
        >>> universals([], {})
        []
    """
    found = []
    for group in groups:
        z = group.first.inverse
        if z is not None:
            shown, factor = magnified(z)
            names = class_names(group.first.folder, samples, len(z))
            cards = [{"name": name, "src": data_uri(one)} for name, one in zip(names, shown, strict=True)]
            ball = threat_text(group.first.ball)
            found.append({"label": group.label, "ball": ball, "factor": f"{factor:.3g}", "cards": cards})
    return found
