"""`uiat analyse`: the paper's studies on run folders."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uiat.analyse import STUDIES, Result
from uiat.analyse import run as run_study
from uiat.cli import options
from uiat.cli.output import console, table
from uiat.cli.settings import split_words
from uiat.errors import Stopped, UserError

StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="; ".join(f"{study.name}: {study.about}" for study in STUDIES.values()) + ".",
        show_default=False,
    ),
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Run folders; with --train, FIELD=VALUE instead.", show_default=False),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for STUDY.json, .svg, .png, .pdf and .md.")]
Count = Annotated[
    int | None,
    typer.Option(
        "--n",
        "-n",
        min=1,
        metavar="N",
        help="Images, the first of the test set (of an image folder a stratified sample); of the held-out images in "
        "one-off, ablation and tradeoff. [default: 1000, or all]",
    ),
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Seed of random starts and directions. [default: 0]", show_default=False)
]
ThreatModel = Annotated[
    str | None,
    typer.Option(
        metavar="NORM:RADIUS",
        help="Threat model of the attacks, in units of the image range [0, 1]. [default: that of the first run that "
        "has one]",
    ),
]
Attack = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="pgd-K, cw-K or fgsm (K steps); for strength and unseen any of uiat evaluate. [default: pgd-20]",
    ),
]
Epsilons = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Strengths of the studies strength and confidence-gap, in units of [0, 1], ascending: 0,2/255,...,16/255. "
        "[default: quarters of the radius, to twice it; from -1 to 1 times it]",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--train",
        metavar="RECIPE",
        help="Of ablation: train this recipe of UIAT and it with one thing changed, wherever that is missing.",
    ),
]
Seeds = Annotated[
    str | None, typer.Option(metavar="LIST", help="Of --train: seeds, separated by commas. [default: 0,1,2]")
]
Which = Annotated[
    str | None,
    typer.Option(
        metavar="best|last", help="Weights of the best epoch on held-out images, or of the last. [default: best]"
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Of --train: the same as FIELD=VALUE alone; may be repeated."),
]
TrainDir = Annotated[
    Path | None, typer.Option("--runs", metavar="DIR", help="Of --train: folder of the runs. [default: OUT/runs]")
]
FigureWidth = Annotated[
    str,
    typer.Option(
        metavar="WIDTH",
        help="Of the figure: screen (5.2 inches, for pages and talks), one (3.3 inches, a column of a paper) or two "
        "(6.9 inches, both columns, panels side by side).",
    ),
]


def analyse(
    study: StudyName,
    runs: Runs = None,
    out: Out = Path("analysis"),
    n: Count = None,
    seed: Seed = None,
    threat: ThreatModel = None,
    attack: Attack = None,
    epsilons: Epsilons = None,
    which: Which = None,
    root: options.Root = None,
    device: options.Device = None,
    own_code: options.OwnCode = False,
    train: Recipe = None,
    seeds: Seeds = None,
    set_: Settings = None,
    train_dir: TrainDir = None,
    width: FigureWidth = "screen",
) -> None:
    """Run one of the paper's studies on run folders.

    Example: uiat analyse strength runs/cifar10-small-uiat runs/cifar10-small-pgd-at --out analysis

    Example: uiat analyse ablation --train digits-uiat optimisation.epochs=20 --seeds 0,1,2

    Numbers go to STUDY.json, a figure to STUDY.svg, .png and .pdf, and what they say to STUDY.md.

    Files of the same study and inputs are written again, others never. An option that a study does not read is refused.
    --train resumes where it was stopped.
    """
    options = dict(locals())
    folders, settings = _split_runs(options.pop("runs") or [])
    options["recipe"] = options.pop("train")
    options["settings"] = (*_read_settings(options.pop("set_") or []), *settings)
    seeds = options.pop("seeds")
    _analyse(runs=folders, seeds=None if seeds is None else _read_seeds(seeds), **options)


def _split_runs(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the run folders and the settings; the folder of a run of a sweep may have a "=" in its name, too."""
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    return [word for word in words if word not in settings], split_words(settings)[1]


def _analyse(study: str, runs: list[str], *, recipe: str | None, **chosen: Any) -> None:
    screen = console()

    def show_progress(line: str) -> None:
        screen.print(line, soft_wrap=True)

    try:
        result = run_study(study, runs, recipe=recipe, on_progress=show_progress, **chosen)
    except KeyboardInterrupt:
        if recipe is None:
            raise
        raise Stopped("stopped; the same command resumes it") from None
    _show(result, screen)


def _read_seeds(words: str) -> tuple[int, ...]:
    try:
        seeds = tuple(dict.fromkeys(int(word) for word in words.split(",")))
    except ValueError:
        raise UserError(f"--seeds are whole numbers separated by commas, not {words!r}") from None
    return seeds


def _read_settings(words: list[str]) -> tuple[tuple[str, str], ...]:
    names, pairs = split_words(words)
    if names:
        raise UserError(f"--set takes FIELD=VALUE, not {names[0]!r}")
    return tuple(pairs)


def _show(result: Result, screen: Any) -> None:
    if result.table:
        heading, *rows = result.table
        screen.print(table(*heading, rows=rows, numbers=heading[1:]))
    screen.print(f"\n{result.paragraph}\n", soft_wrap=True)
    for path in result.files:
        screen.print(f"written: {path}", soft_wrap=True)
