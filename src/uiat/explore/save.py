"""The page as one file that needs no server: every answer to the positions of the slider is in it."""

import base64
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uiat.data import as_float
from uiat.errors import UserError
from uiat.explore.answers import FARTHEST, PER_RADIUS, Explorer, Source
from uiat.explore.page import TOOL, describe, encode, render
from uiat.system.atomic_files import check_page, ensure_folder, write_text

MOST_BYTES = 20_000_000  # of a saved page
MOST_CLASSES = 20  # of which the page holds the universal perturbations


def save_page(explorer: Explorer, out: Path) -> None:
    """Write the page with the answers to every image, source and position; universal ones for every class.

    Raises:
        UserError: a file in the way, or a page that would be too large: fewer images make it smaller.
    """
    check_page(out, TOOL)
    facts = describe(explorer, form="saved")
    count, shape = len(facts["images"]), explorer.images.image_shape
    attacks = sum(source.kind == "pgd" for source in explorer.sources)
    size = count * attacks * (2 * FARTHEST + 1) * shape[0] * shape[1] * shape[2] * 4 // 3
    if size > MOST_BYTES:
        raise UserError(f"the page would have {size / 1e6:.0f} MB: save fewer images (--n), or fewer runs")
    for image in facts["images"]:
        image |= {"pgd": {}, "universal": {}}
    for i, source in enumerate(explorer.sources):
        if source.kind == "pgd":
            _add_attack(explorer, source, i, facts["images"])
        elif explorer.images.num_classes <= MOST_CLASSES:
            _add_universal(explorer, source, i, facts)
    if explorer.images.num_classes > MOST_CLASSES:
        facts["sources"] = [source for source in facts["sources"] if source["kind"] == "pgd"]
    page, _ = render(facts, connect=False)
    ensure_folder(out.parent)
    write_text(out, page)


def _add_attack(explorer: Explorer, source: Source, place: int, images: list[dict[str, Any]]) -> None:
    x, y = as_float(explorer.images.images), explorer.images.labels
    for image in images:
        image["pgd"][place] = []
    for position in range(-FARTHEST, FARTHEST + 1):
        moved = explorer.move(source, x, y, position)
        shares = explorer.probabilities(moved)
        for i, image in enumerate(images):
            image["pgd"][place].append({"pixels": encode(moved[i]), "probabilities": _bytes_of(shares[:, i])})


def _add_universal(explorer: Explorer, source: Source, place: int, facts: dict[str, Any]) -> None:
    """Add the perturbations, which the page adds to images itself, and the answers to what comes of it."""
    inverse = explorer.subjects[source.model].inverse
    assert inverse is not None
    z = inverse.upsampled()
    unit = float(z.abs().max()) / 127 or 1.0
    kept = (z / unit).round() + 128
    radius = float(inverse.threat.epsilon)
    facts["sources"][place] |= {
        "z": [_bytes_of(one / 255) for one in kept],
        "unit": 255 * unit,
        "perPosition": float(explorer.threat.epsilon) / PER_RADIUS / radius,
    }
    x, positions = as_float(explorer.images.images), range(-FARTHEST, FARTHEST + 1)
    for label in range(explorer.images.num_classes):
        y = torch.full((len(x),), label)
        moved = torch.cat([explorer.move(source, x, y, position) for position in positions])
        shares = explorer.probabilities(moved).unflatten(1, (len(positions), len(x)))
        for i, image in enumerate(facts["images"]):
            answers = [{"probabilities": _bytes_of(shares[:, p, i])} for p in range(len(positions))]
            image["universal"].setdefault(place, []).append(answers)


def _bytes_of(shares: Tensor) -> str:
    """Return values in [0, 1] as base64 of one byte each."""
    return base64.b64encode(bytes((shares.clamp(0, 1) * 255).round().flatten().int().tolist())).decode()
