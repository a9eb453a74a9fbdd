"""The pictures of a report: images with what a model says of them, and the universal perturbations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uiat.report.groups import Group
from uiat.report.pictures import data_uri, magnified
from uiat.report.samples import Sample, Samples, class_names
from uiat.report.words import threat_text

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
