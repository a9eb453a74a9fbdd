"""Put the page together: one HTML file with its style, its script and its data, which asks for nothing elsewhere."""

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from torch import Tensor

from uiat.explore.answers import FARTHEST, PER_RADIUS, STEPS, Explorer
from uiat.formatting import in_255ths, strength_text, threat_text

TOOL = "uiat explore"  # stands among the first bytes of a saved page, which may be replaced by another one
SCRIPTS = ("picture.js", "draw.js", "chart.js", "page.js")


def describe(explorer: Explorer, *, form: str) -> dict[str, Any]:
    """Return what the page has to know before it asks anything.

    Args:
        explorer: the models and the images.
        form: "live" where a server answers, "saved" where every answer is in the file.

    Example:
        >>> import torch
        >>> from uiat import Linf
        >>> from uiat.data import ImageSet
        >>> images = ImageSet(torch.zeros(1, 1, 2, 2), torch.tensor([0]), ("a",), "example")
        >>> describe(Explorer([], images, Linf(0.1), torch.device("cpu")), form="live")["radii"][-1]
        '+0.2'
    """
    images = explorer.images
    return {
        "form": form,
        "data": images.name,
        "shape": list(images.image_shape),
        "classes": list(images.classes),
        "models": [subject.name for subject in explorer.subjects],
        "sources": [
            {"kind": source.kind, "model": source.model, "text": explorer.describe(source)}
            for source in explorer.sources
        ],
        "threat": threat_text(explorer.threat),
        "steps": STEPS,
        "farthest": FARTHEST,
        "perRadius": PER_RADIUS,
        "spanText": _radius(explorer, _span(explorer)),
        "radii": [_signed(explorer, position) for position in range(-FARTHEST, FARTHEST + 1)],
        "span": _span(explorer),
        "images": [
            {"pixels": encode(image), "label": int(label)}
            for image, label in zip(images.images, images.labels, strict=True)
        ],
    }


def _signed(explorer: Explorer, position: int) -> str:
    text = _radius(explorer, explorer.epsilon(position))
    return ("+" if position > 0 else "") + text.replace("-", "\u2212")


def _radius(explorer: Explorer, radius: float) -> str:
    return strength_text(radius, pixels=in_255ths(explorer.threat.norm, float(explorer.threat.epsilon)))


def _span(explorer: Explorer) -> float:
    """Return the change of a value that is shown as black or white, in units of [0, 1].

    Under Linf no change is larger than the slider's reach. Under L2 and L1 one value may take all of it, and most are
    far below: a tenth of it, at most the whole range, shows those.
    """
    reach = 2 * float(explorer.threat.epsilon)
    return reach if explorer.threat.norm == "Linf" else min(1.0, max(reach / 10, 8 / 255))


def encode(image: Tensor) -> str:
    """Return an image (C, H, W), uint8 or in [0, 1], as base64 of one byte a value.

    Example:
        >>> import torch
        >>> encode(torch.tensor([[[0.0, 1.0]]]))
        'AP8='
    """
    pixels = image if not image.is_floating_point() else (image.clamp(0, 1) * 255).round()
    return base64.b64encode(bytes(pixels.flatten().int().tolist())).decode()


def render(facts: dict[str, Any], *, connect: bool) -> tuple[str, str]:
    """Return the page and its Content-Security-Policy, which the page also holds itself.

    Args:
        facts: from `describe`.
        connect: let the page ask the server that it came from.

    Example:
        >>> page, policy = render({"form": "saved"}, connect=False)
        >>> page[:15], "connect-src" in policy
        ('<!DOCTYPE html>', False)
    """
    style, template = _read("page.css"), _read("page.html")
    script = '"use strict";\n' + "\n".join(_read(name) for name in SCRIPTS)
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            *(["connect-src 'self'"] if connect else []),
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )
    # No end of the script element, nor a comment, can stand in the data.
    data = json.dumps(facts, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {"MARK": f"written by {TOOL}", "POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": data}
    pieces = template.split("@@")  # text and names of parts in turn; nothing that is put in is looked at again
    return "".join(piece if i % 2 == 0 else parts[piece] for i, piece in enumerate(pieces)), policy


def _read(name: str) -> str:
    return (resources.files("uiat.explore") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
