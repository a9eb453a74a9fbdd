"""`uiat compare`: two evaluations image by image."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from uiat.cli import options
from uiat.cli.output import AsJson, console, json_printed, table
from uiat.experiments.compare import Comparison
from uiat.experiments.compare import compare as compare_folders

First = Annotated[Path, typer.Argument(metavar="A", help="A folder with an evaluation.", show_default=False)]
Second = Annotated[Path, typer.Argument(metavar="B", help="Another one.", show_default=False)]
Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE.html", help="Write a page with pictures of the images that differ."),
]
Shown = Annotated[int, typer.Option(min=1, max=500, metavar="N", help="Pictures on that page, at most.")]
OwnCode = Annotated[bool, typer.Option("--own-code", help="Let A name Python code that opens its images.")]


def compare(
    a: First,
    b: Second,
    save: Save = None,
    shown: Shown = 60,
    root: options.Root = None,
    own_code: OwnCode = False,
    json: AsJson = False,
) -> None:
    """Compare two evaluations image by image.

    Example: uiat compare runs/digits-uiat runs/digits-pgd-at --save difference.html

    For the images as they are, after each attack and in the worst case: how many images both models have right, one
    alone, or neither, and McNemar's exact test, whose p-value says how likely so large a difference is by chance. Both
    have to be evaluated on the same images under the same threat model.
    """
    with json_printed(json) as give:
        found = compare_folders(a, b)
        give(found.to_json())
        screen = console()
        _show(found, screen)
        if save is not None:
            from uiat.experiments.compare_page import write_page

            write_page(found, a, save, shown=shown, root=root, own_code=own_code)
            screen.print(f"written: {save}", soft_wrap=True)


def _show(found: Comparison, out: Console) -> None:
    out.print(f"A: {found.a}\nB: {found.b}", soft_wrap=True)
    out.print(f"{found.n:,} test images of {found.data}, threat model {found.threat}\n", soft_wrap=True)
    columns = ("right after", "A", "B", "both", "A alone", "B alone", "neither", "p (McNemar)")
    rows = [
        (
            each.name,
            *(f"{100 * (each.both + alone) / found.n:.2f} %" for alone in (each.only_a, each.only_b)),
            *(f"{count:,}" for count in (each.both, each.only_a, each.only_b, each.neither)),
            f"{each.p:.2g}",
        )
        for each in found.tables
    ]
    out.print(table(*columns, rows=rows, numbers=columns[1:]))
    for winner, loser, of_b in (("A", "B", True), ("B", "A", False)):
        if counts := found.breakers(of_b=of_b):
            what = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            out.print(f"{winner} alone withstands {sum(counts.values()):,}: {loser} falls to {what}", soft_wrap=True)
    for note in found.notes:
        out.print(f"note: {note}", soft_wrap=True)
