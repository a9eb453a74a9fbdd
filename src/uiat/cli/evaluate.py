"""`uiat evaluate`: a run's model on test images, under named attacks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from uiat import checkpoint, evaluation, text
from uiat.cli.output import console, table
from uiat.config import Run
from uiat.data import Folder, ImageSet, as_float, open_data
from uiat.errors import UserError, nearest
from uiat.files import write_json
from uiat.progress import evaluation_progress, percent
from uiat.runs import pick_device, read_run
from uiat.threat import Threat, parse

FILE = "evaluation.json"


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Attacks = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Separated by commas: clean, fgsm, pgd-K (K steps), pgd-K-R (R restarts), cw-K (margin loss), apgd-ce, "
        "apgd-dlr, apgd-t, fab-t, square, autoattack (the standard ensemble), autoattack-quick (its first two).",
        show_default="those of the run",
    ),
]
Count = Annotated[
    int | None, typer.Option(min=1, help="Images, the first of the test set.", show_default="as the run says, or all")
]
Which = Annotated[
    str, typer.Option(metavar="best|last", help="Weights of the best epoch on held-out images, or of the last.")
]
Ball = Annotated[
    str | None,
    typer.Option(
        metavar="NORM:RADIUS",
        help="Threat model, such as Linf:8/255 or L2:0.5, in units of the image range [0, 1].",
        show_default="that of the run",
    ),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images at a time.", show_default="as the run says")]
Seed = Annotated[int, typer.Option(help="Of the random starts.")]
Json = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the result here as well as to RUN/evaluation.json.")
]
Root = Annotated[
    str | None,
    typer.Option("--data.root", metavar="DIR", help="Folder of the data sets.", show_default="that of the run"),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.", show_default="that of the run")
]
OwnCode = Annotated[bool, typer.Option("--own-code", help="Let the run name Python code that builds the model.")]


def evaluate(
    run: RunFolder,
    attacks: Attacks = None,
    n: Count = None,
    which: Which = "best",
    threat: Ball = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    json: Json = None,
    root: Root = None,
    device: Device = None,
    own_code: OwnCode = False,
) -> None:
    """Measure a run's accuracy on test images, as they are and under attack.

    Example: uiat evaluate runs/digits-uiat --attacks clean,pgd-20,cw-20 --n 1000

    The result goes to RUN/evaluation.json, in place of an earlier one, with each image's verdict, the threat model,
    seed, versions, hardware and seconds. "worst" counts an image as right only if it stands under every attack.
    """
    out, settings = console(), read_run(run)
    ball = _threat(settings, threat)
    names = _names(settings, attacks, ball)
    model = _model(run, which, own_code=own_code, device=device or settings.compute.device)
    _writable(json)
    images = judged_images(settings, n=n or settings.evaluation.n, root=root)
    size = batch_size or settings.evaluation.batch_size
    what = f"{run}, {which} weights, on {len(images):,} test images of {images.name}"
    out.print(f"{what}; threat model {ball.norm} {text.to_dict(ball)['epsilon']}", soft_wrap=True)
    result = _measure(model, images, ball, names, batch_size=size, seed=seed, out=out)
    out.print(results_table(result.to_json()))
    if "autoattack-quick" in names:
        out.print("autoattack-quick is the first two attacks of the standard ensemble: no substitute for autoattack")
    record = {"run": settings.name, "which": which, "data": images.name, "split": "test", "batch_size": size}
    _write(record | result.to_json(), [path for path in (run / FILE, json) if path is not None], out)


def _model(run: Path, which: str, *, own_code: bool, device: str) -> nn.Module:
    if which not in ("best", "last"):
        raise nearest("weights", which, ("best", "last"))
    return checkpoint.load(run, cast(checkpoint.Which, which), own_code=own_code).to(pick_device(device))


def _write(record: Mapping[str, Any], paths: Sequence[Path], out: Console) -> None:
    """To each of the files, also where another one of them cannot be written."""
    failures = []
    for path in paths:
        try:
            write_json(path, record)
            out.print(f"written: {path}", soft_wrap=True)
        except UserError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _threat(run: Run, asked: str | None) -> Threat:
    ball = parse(asked) if asked is not None else run.threat
    if ball is None:
        raise UserError("the run was trained without a threat model: give one, such as --threat Linf:8/255")
    return ball


def _names(run: Run, asked: str | None, ball: Threat) -> tuple[str, ...]:
    """The attacks, each known: a mistyped one is refused before anything is loaded."""
    words = run.evaluation.attacks if asked is None else [word.strip() for word in asked.split(",")]
    names = tuple(dict.fromkeys(["clean", *(word for word in words if word)]))
    for name in names:
        evaluation.stages(name, threat=ball)
    return names


def _writable(json: Path | None) -> None:
    """Refuse a file that cannot be written before the work and not after it."""
    if json is not None and not json.absolute().parent.is_dir():
        raise UserError(f"cannot write {json}: there is no folder {json.parent}")
    if json is not None and json.exists() and not json.is_file():
        raise UserError(f"cannot write {json}: it is not a regular file")


def judged_images(run: Run, *, n: int | None = None, root: str | None = None) -> ImageSet:
    """The first n test images of a run's data set; all of them by default, or where there are fewer.

    Example:
        >>> len(judged_images(Run(), n=5))
        5
    """
    data = open_data(run.data.name, "test", root=root or run.data.root, image_size=run.data.image_size)
    if n is not None and n < len(data):
        data = data.subset(range(n))
    return data.decode() if isinstance(data, Folder) else data


def _measure(
    model: nn.Module,
    images: ImageSet,
    ball: Threat,
    names: tuple[str, ...],
    *,
    batch_size: int,
    seed: int,
    out: Console,
) -> evaluation.EvaluationResult:
    with evaluation_progress(names, out) as progress:
        return evaluation.evaluate(
            model,
            as_float(images.images),
            images.labels,
            threat=ball,
            attacks=names,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )


def results_table(result: dict[str, Any]) -> Table:
    """Accuracy under each attack, an ensemble's after each of its stages, with how many images and how long.

    Example:
        >>> results_table({"n": 2, "accuracy": {"clean": 1.0, "worst": 0.5}, "seconds": {"clean": 0.1}}).row_count
        2
    """
    n, seconds = result["n"], result["seconds"]
    rows = []
    for name, share in result["accuracy"].items():
        for stage, after in result.get("stages", {}).get(name, {}).items():
            rows.append((f"  after {stage}", percent(after), f"{n:,}", ""))
        rows.append((name, percent(share), f"{n:,}", f"{seconds[name]:.1f}" if name in seconds else ""))
    return table("attack", "accuracy", "images", "seconds", rows=rows, numbers=("accuracy", "images", "seconds"))
