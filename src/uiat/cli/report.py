"""`uiat report`: run folders side by side, as a page to look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from uiat.cli import options
from uiat.cli.output import console
from uiat.errors import UserError
from uiat.experiments.predictions import predict
from uiat.report import FORMS, RunFiles, Samples, check_out, make_table, read_all, runs_with_images, write_report

Runs = Annotated[list[Path] | None, typer.Argument(metavar="RUN", help="Run folders.", show_default=False)]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The HTML file; Markdown goes beside it. Replaces a report, and no other file. [default: report.html]",
    ),
]
InForm = Annotated[
    str | None,
    typer.Option(
        "--table", metavar="|".join(FORMS), help="Print a table of the accuracies for a paper, and write no report."
    ),
]
Images = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Test images that each model answers on under PGD-20, for pictures and confusion; 0 reads files only.",
    ),
]
Shown = Annotated[int, typer.Option(min=0, metavar="N", help="Images that are shown of each run.")]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="Device: auto, cpu, cuda, cuda:1, mps. [default: that of the run]")
]
OwnCode = Annotated[bool, typer.Option("--own-code", help="Let runs name Python code that builds their model.")]


def report(
    runs: Runs = None,
    out: Out = None,
    table: InForm = None,
    images: Images = 200,
    shown: Shown = 6,
    root: options.Root = None,
    device: Device = None,
    own_code: OwnCode = False,
) -> None:
    """Set runs side by side in one HTML file.

    Example: uiat report runs/* --out report.html

    The file needs no network; the same stands in Markdown beside it. Accuracies with mean and standard deviation over
    seeds, beside published numbers where there are some; training and strength curves; accuracy by class and
    confusion; natural, adversarial and inverse images; the universal perturbations; the settings that differ; versions
    and hardware. Nothing is trained or evaluated: `uiat evaluate` first.

    Example: uiat report runs/my-sweep --table latex > table.tex
    """
    if table is not None:
        if out is not None:
            raise UserError("--table prints the table and writes no file: leave --out away, and send it on with > FILE")
        print(make_table(runs or [], table), end="")
        return
    out = out or Path("report.html")
    check_out(out)
    files = read_all(runs or [])
    screen = console()
    known = _samples(files, screen, images=images, shown=shown, root=root, device=device, own_code=own_code)
    for path in write_report(runs or [], out, samples=known):
        screen.print(f"written: {path}", soft_wrap=True)


def _samples(
    files: Sequence[RunFiles],
    out: Console,
    *,
    images: int,
    shown: int,
    root: str | None,
    device: str | None,
    own_code: bool,
) -> dict[Path, Samples]:
    """Return the pictures of the runs that the report shows some of; a run whose model or data is missing has none."""
    samples = {}
    for run in runs_with_images(files) if images else []:
        try:
            samples[run.folder] = predict(run, images=images, shown=shown, root=root, device=device, own_code=own_code)
        except UserError as error:
            out.print(f"no pictures of {run.folder}: {error}", soft_wrap=True)
        except Exception as error:  # pictures are beside the numbers
            kind, reason = type(error).__name__, " ".join(str(error).split())
            out.print(f"no pictures of {run.folder}: {kind}: {reason}", soft_wrap=True)
    return samples
