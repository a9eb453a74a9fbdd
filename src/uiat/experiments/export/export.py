"""Export a run: a new folder in one of the formats, checked against the run's model before it has its name."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uiat.errors import UserError, nearest
from uiat.experiments.export.bundle import Bundle, open_bundle
from uiat.experiments.export.card import make_card
from uiat.experiments.export.formats import write_onnx, write_program, write_pytorch
from uiat.experiments.export.vnnlib import write_properties
from uiat.runs import checkpoint
from uiat.system.atomic_files import partial_name, write_text
from uiat.system.atomic_folder import clear_abandoned, marked_in_use

CARD = "README.md"


def _write_hf(bundle: Bundle, folder: Path) -> float:
    difference = write_pytorch(bundle, folder)
    write_text(folder / CARD, make_card(bundle))
    return difference


FORMATS: dict[str, Callable[[Bundle, Path], float]] = {
    "pytorch": write_pytorch,
    "onnx": write_onnx,
    "torch-export": write_program,
    "hf": _write_hf,
}


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Args:
        folder: the new folder.
        files: its files, by name.
        difference: largest difference of logits to the run's model, relative to the largest logit.
        images: number of test images on which they were compared.
        properties: number of VNN-LIB properties written.
    """

    folder: Path
    files: tuple[str, ...]
    difference: float
    images: int
    properties: int = 0


def export_run(
    run: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    which: checkpoint.Which = "best",
    root: str | None = None,
    own_code: bool = False,
    vnnlib: int = 0,
) -> Exported:
    """Export the model of a run folder.

    Args:
        run: the run folder.
        to: "pytorch" (a folder that plain PyTorch loads), "onnx", "torch-export", or "hf" (the layout of the Hugging
            Face Hub, with a model card).
        out: the new folder; RUN/export-FORMAT by default.
        which: weights of the best or the last epoch.
        root: folder of the data sets; that of the run by default.
        own_code: let the run name code that builds the model.
        vnnlib: with "onnx", write robustness properties of the first so many test images for verifiers.

    Raises:
        UserError: no such format, a folder that exists, a package that is not installed, a model that cannot be
            exported, or an exported model whose logits differ from the run's by more than 1e-5 of the largest.

    Example:
        >>> export_run("missing-run", "onxx")
        Traceback (most recent call last):
        uiat.errors.UserError: unknown format 'onxx'; did you mean 'onnx'? ...
    """
    if to not in FORMATS:
        raise nearest("format", to, FORMATS)
    if vnnlib and to != "onnx":
        raise UserError(f"VNN-LIB properties belong to an ONNX file: export to onnx, not to {to}")
    run = Path(run)
    target = run / f"export-{to}" if out is None else Path(out)
    if os.path.lexists(target):  # a link that leads nowhere, too
        raise UserError(f"{target} exists and is never overwritten: choose another with --out")
    bundle = open_bundle(run, which=which, own_code=own_code, root=root, n=vnnlib)
    folder = _make_beside(target)
    try:
        with marked_in_use(folder):
            difference = FORMATS[to](bundle, folder)
            properties = write_properties(bundle, folder, vnnlib) if vnnlib else 0
            _rename(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    return Exported(target, tuple(files), difference, len(bundle.images), properties)


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:  # something has taken the name in the meantime
        raise UserError(f"cannot make the folder {target}: {error.strerror}") from None


def _make_beside(target: Path) -> Path:
    """Make a temporary folder in the place of the target, and clear away what killed exports of it have left there."""
    folder = target.absolute().parent / partial_name(target.name)
    try:
        clear_abandoned(target, shutil.rmtree)
        folder.mkdir()
        return folder
    except OSError as error:
        raise UserError(f"cannot make the folder {target}: {error.strerror}; choose another with --out") from None
