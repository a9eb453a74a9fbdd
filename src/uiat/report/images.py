"""Panels of images: natural, adversarial and inverse ones, and universal perturbations; written as PNG."""

import base64
import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from uiat.formatting import threat_text
from uiat.report.inputs import Inputs, Sample
from uiat.report.section import Card, Picture, Section


def png(image: Tensor) -> bytes:
    r"""Encode an image (C, H, W) in [0, 1], of one or three channels, as a PNG of 8 bits a channel.

    Other numbers of channels are shown as the mean over them, in grey.

    Example:
        >>> png(torch.zeros(1, 2, 2))[:4]
        b'\x89PNG'
    """
    if len(image) not in (1, 3):
        image = image.mean(dim=0, keepdim=True)
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu()
    written = io.BytesIO()
    Image.fromarray(pixels.squeeze(2).numpy()).save(written, "PNG", optimize=True)
    return written.getvalue()


def data_uri(image: Tensor) -> str:
    """Encode an image as a data: address, which needs no network.

    Example:
        >>> data_uri(torch.zeros(1, 2, 2))[:22]
        'data:image/png;base64,'
    """
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def magnify(delta: Tensor) -> tuple[Tensor, float]:
    """Stretch a perturbation to the whole range, with no change at 0.5, and return by which factor it was stretched.

    Example:
        >>> shown, factor = magnify(torch.tensor([[[0.1, -0.05]]]))
        >>> shown.flatten().tolist(), round(factor, 3)
        ([1.0, 0.25], 5.0)
    """
    largest = float(delta.abs().max()) if delta.numel() else 0.0
    factor = 0.5 / largest if largest > 0 else 1.0
    return 0.5 + delta * factor, factor


KINDS = ("natural", "adversarial", "inverse")


def galleries(inputs: Inputs) -> Section:
    """Return the panel of images as they are, attacked and moved towards their class, with what the model predicts."""
    parts = []
    for group in inputs.groups:
        known = inputs.samples_of(group)
        if known is not None and known.shown:
            about = f"Adversarial: {known.attack}. Inverse: {known.inverse}."
            cards = [_card(sample, known.classes) for sample in known.shown]
            parts.append(Section(group.label, intro=about, cards=cards))
    return Section(
        "Natural, adversarial, inverse",
        anchor="gallery",
        link="Gallery",
        intro='Below each image: the predicted class and its probability. "Added": what was added to the natural '
        "image, magnified (grey: nothing).",
        parts=parts,
    )


def _card(sample: Sample, names: Sequence[str]) -> Card:
    """Show the images of one sample, after the adversarial and the inverse one what was added to make it."""
    name, pictures = names[sample.label], list[Picture]()
    for kind in (kind for kind in KINDS if kind in sample.images):
        label, confidence = sample.predicted[kind]
        is_correct = label == sample.label
        answer = f"{names[label]}, {100 * confidence:.0f}\u00a0%"  # a number and its unit stay on one line
        pictures.append(
            Picture(
                data_uri(sample.images[kind]),
                alt=f"{kind} image of {name}, predicted as {answer}",
                hint=f"{kind}: {answer}",
                above=kind,
                below=f"{'✓' if is_correct else '✗'}\u00a0{answer}",
                kind=kind,
                tone="agrees" if is_correct else "suspicious",
            )
        )
        if kind != "natural":
            pictures.append(_added(sample, kind))
    return Card(f"test image {sample.index}:", name, pictures)


def _added(sample: Sample, kind: str) -> Picture:
    shown, factor = magnify(sample.images[kind] - sample.images["natural"])
    return Picture(
        data_uri(shown),
        alt=f"what was added to make the {kind} image, magnified ×{factor:.0f}",
        hint=f"added, ×{factor:.0f}",
        above=f"added,\u00a0×{factor:.0f}",
        kind=f"added {kind}",
    )


def universals(inputs: Inputs) -> Section:
    """Return the panel of universal inverse perturbations, of each group's first run, stretched to be seen."""
    parts = []
    for group in inputs.groups:
        z = group.first.inverse
        if z is not None:
            shown, factor = magnify(z)
            pictures = [
                Picture(data_uri(one), f"universal inverse perturbation of class {name}", hint=name, below=name)
                for name, one in zip(inputs.class_names(group, len(z)), shown, strict=True)
            ]
            about = (
                f"In the ball {threat_text(group.first.inverse_threat)}; magnified ×{factor:.3g}, grey is no change."
            )
            parts.append(Section(group.label, intro=about, pictures=pictures))
    return Section(
        "Universal inverse perturbations",
        anchor="universal",
        link="Universal perturbations",
        intro="One a class: added to any image of the class, it makes the model surer of it.",
        parts=parts,
    )
