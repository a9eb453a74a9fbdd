"""Robustness properties in VNN-LIB, for verifiers: is there an image in the Linf ball that is classified otherwise?"""

import itertools
from pathlib import Path

from torch import Tensor

from uiat.errors import UserError
from uiat.experiments.export.bundle import Bundle
from uiat.experiments.export.formats import ONNX
from uiat.system.atomic_files import write_text
from uiat.threat import parse

TIMEOUT = 300  # seconds, as the verification competition writes in instances.csv


def write_properties(bundle: Bundle, folder: Path, n: int) -> int:
    """Write a property for each of the first n test images that the model classifies correctly, and instances.csv.

    The property is the negation of robustness, as VNN-LIB has it: a verifier that answers "sat" has found an
    adversarial example, one that answers "unsat" has proved that there is none.

    Returns:
        The number of properties.

    Raises:
        UserError: a threat model other than Linf: VNN-LIB's boxes are no other balls.
    """
    threat = parse(bundle.threat) if bundle.threat else None
    if threat is None or threat.norm != "Linf":
        raise UserError(f"VNN-LIB properties are boxes: they need a run trained against Linf, not {bundle.threat!r}")
    right = (bundle.logits.argmax(1) == bundle.labels).nonzero().flatten()
    chosen = [i for i in right.tolist() if i < n]
    for kind in ("vnnlib", "vnnlib-2"):
        (folder / kind).mkdir()
    rows, data = [], bundle.files.setting("data.name")
    for i in chosen:
        name = f"vnnlib/image-{i:05d}.vnnlib"
        given = (bundle.images[i], int(bundle.labels[i]), len(bundle.classes), float(threat.epsilon))
        write_text(folder / name, f"; test image {i} of {data}\n{property_text(*given)}")
        write_text(folder / name.replace("vnnlib/", "vnnlib-2/"), property_text_2(*given))
        rows.append(f"{ONNX},{name},{TIMEOUT}\n")
    write_text(folder / "instances.csv", "".join(rows))
    return len(chosen)


def property_text(image: Tensor, label: int, classes: int, epsilon: float) -> str:
    """Return the property of one image in VNN-LIB 1.0, which verifiers read today.

    Args:
        image: (C, H, W) in [0, 1]; its values are the inputs X_0, X_1, ... in this order.
        label: its class.
        classes: number of classes.
        epsilon: radius of the Linf ball.

    Example:
        >>> import torch
        >>> print(property_text(torch.tensor([[[0.5]]]), 1, 2, 0.1))
        (declare-const X_0 Real)
        (declare-const Y_0 Real)
        (declare-const Y_1 Real)
        (assert (>= X_0 0.4))
        (assert (<= X_0 0.6))
        (assert (or (and (>= Y_0 Y_1))))
        <BLANKLINE>
    """
    lower, upper = _box(image, epsilon)
    lines = [f"(declare-const X_{i} Real)" for i in range(image.numel())]
    lines += [f"(declare-const Y_{k} Real)" for k in range(classes)]
    for i, (low, high) in enumerate(zip(lower, upper, strict=True)):
        lines += [f"(assert (>= X_{i} {low}))", f"(assert (<= X_{i} {high}))"]
    others = " ".join(f"(and (>= Y_{k} Y_{label}))" for k in range(classes) if k != label)
    lines.append(f"(assert (or {others}))")
    return "\n".join(lines) + "\n"


def property_text_2(image: Tensor, label: int, classes: int, epsilon: float) -> str:
    """Return the property of one image in VNN-LIB 2.0; the arguments are those of `property_text`.

    Example:
        >>> import torch
        >>> print(property_text_2(torch.tensor([[[0.5]]]), 1, 2, 0.1))
        (vnnlib-version <2.0>)
        (declare-network N
          (declare-input X float32 [1,1,1,1])
          (declare-output Y float32 [1,2])
        )
        (assert (and (>= X[0,0,0,0] 0.4) (<= X[0,0,0,0] 0.6)))
        (assert (>= Y[0,0] Y[0,1]))
        <BLANKLINE>
    """
    shape = ",".join(map(str, (1, *image.shape)))
    lines = ["(vnnlib-version <2.0>)", "(declare-network N", f"  (declare-input X float32 [{shape}])"]
    lines += [f"  (declare-output Y float32 [1,{classes}])", ")"]
    places = itertools.product(*(range(side) for side in image.shape))
    for place, low, high in zip(places, *_box(image, epsilon), strict=True):
        pixel = f"X[0,{','.join(map(str, place))}]"
        lines.append(f"(assert (and (>= {pixel} {low}) (<= {pixel} {high})))")
    others = [f"(>= Y[0,{k}] Y[0,{label}])" for k in range(classes) if k != label]
    lines.append(f"(assert {others[0]})" if len(others) == 1 else f"(assert (or {' '.join(others)}))")
    return "\n".join(lines) + "\n"


def _box(image: Tensor, epsilon: float) -> tuple[list[str], list[str]]:
    """Return the lower and the upper bound of each pixel, as text: the ball and [0, 1] together."""
    values = image.flatten().double()
    lower, upper = ([_decimal(v) for v in (values + side).clamp(0, 1).tolist()] for side in (-epsilon, epsilon))
    return lower, upper


def _decimal(value: float) -> str:
    """Return a number with a point and without an exponent, as the formats have it; a pixel has no more digits."""
    text = f"{value:.8f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
