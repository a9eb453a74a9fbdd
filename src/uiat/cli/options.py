"""The options of `uiat evaluate`, with their units."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from uiat.config.schema import Run
from uiat.errors import UserError, nearest

RunFolder = Annotated[Path | None, typer.Argument(metavar="RUN", help="A run folder; or --model.", show_default=False)]
ModelName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A built-in model, wrn-D-K, timm:NAME, or your own code: file.py:function or package.module:function, "
        "called as function(num_classes=, image_shape=); it takes images in [0, 1].",
    ),
]
Width = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="Of a built-in --model: channels (16) or a factor (0.5).")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Of --model: .safetensors, or a .pth or .pt of tensors alone; nothing in it is run.",
    ),
]
Normalize = Annotated[
    bool,
    typer.Option(
        "--normalize", help="The --model expects normalised images: put the data set's mean and deviation before it."
    ),
]
DataName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="that of the run",
        help="Test images: digits, mnist, fashion-mnist, cifar10, cifar100, svhn, imagefolder:PATH.",
    ),
]
ImageSize = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Side that images of imagefolder:PATH are cut to.")
]
Attacks = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Separated by commas: clean, fgsm, pgd-K and cw-K (K steps; margin loss), pgd-K-R (R restarts), noise-R, "
        "fmn-K, apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square, apgd-ce-eot-D (mean of D answers), autoattack (the "
        "standard ensemble), autoattack-plus, autoattack-rand, autoattack-quick (its first two).",
        show_default="those of the run; clean,pgd-20,cw-20",
    ),
]
# Also -n and --log-file: torchrun takes --n and --log for the beginnings of options of its own.
Count = Annotated[
    int | None,
    typer.Option("--n", "-n", min=1, help="Images, the first of the test set.", show_default="as the run says, or all"),
]
Which = Annotated[
    str, typer.Option(metavar="best|last", help="Weights of the best epoch on held-out images, or of the last.")
]
Ball = Annotated[
    str | None,
    typer.Option(
        metavar="NORM:RADIUS",
        help="Threat model, such as Linf:8/255, L2:0.5 or L1:12, in units of the image range [0, 1].",
        show_default="that of the run",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images at a time, at most: on a CPU fewer where that is faster.",
        show_default="as the run says; 500",
    ),
]
Seed = Annotated[int, typer.Option(help="Of the random numbers.")]
Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result here as well as to evaluation.json.")]
Root = Annotated[
    str | None,
    typer.Option("--data.root", metavar="DIR", help="Folder of the data sets.", show_default="that of the run"),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.", show_default="that of the run; auto")
]
OwnCode = Annotated[bool, typer.Option("--own-code", help="Let the run name Python code that builds the model.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for evaluation.json and the state of an evaluation under way.",
        show_default="RUN; with --model none, and nothing is kept",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an evaluation that was stopped or killed, to the same result.")
]
Transfer = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Also attack with examples made on this run's model (PGD, 50 steps).")
]
Epsilons = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Also sweep the radius, in units of [0, 1], ascending: 0,2/255,...,16/255. Below 0 the attack "
        "helps the model.",
    ),
]
SweepAttack = Annotated[str, typer.Option(metavar="NAME", help="The attack of --epsilons.")]
Norms = Annotated[
    str | None,
    typer.Option(
        metavar="usual|LIST",
        help="Also measure under threats it was not trained for: the usual radii of the data set for the other norms, "
        "or L2:0.5,L1:12.",
    ),
]
NormsAttack = Annotated[str, typer.Option(metavar="NAME", help="The attack of --norms.")]
Corruptions = Annotated[
    str | None,
    typer.Option(
        metavar="all|LIST",
        help="Also measure under the 15 common corruptions at 5 severities, or under some: fog,jpeg_compression.",
    ),
]
Examples = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the adversarial examples here, as .safetensors: x_adv, y, broken."),
]
Bench = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the result here in the shape of RobustBench's model_info.")
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help='Print the log: "robust accuracy after APGD-CE: 45.00%" and the like, for scripts.'
    ),
]
Log = Annotated[Path | None, typer.Option("--log-file", metavar="FILE", help="Add the log to a file.")]

OPTIONS = ("--config", "--resume", "--run-dir", "--own-code", "--tensorboard", "--help")


def split_words(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Names, and (field, value) pairs from FIELD=VALUE, --FIELD=VALUE and --FIELD VALUE.

    Example:
        >>> split_words(["digits-uiat", "seed=1", "--objective.weight", "2"])
        (['digits-uiat'], [('seed', '1'), ('objective.weight', '2')])
    """
    names, assignments, rest = [], [], iter(words)
    for word in rest:
        path, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("-"):
            if equals:
                assignments.append((path, value))
            else:
                names.append(word)
            continue
        if "." not in path and path not in {field.name for field in dataclasses.fields(Run)}:
            raise nearest("option", f"--{path}" if word.startswith("--") else word, OPTIONS)
        following = value if equals else next(rest, None)
        if following is None or (not equals and following.startswith("--")):
            raise UserError(f"{word} needs a value: {word} VALUE")
        assignments.append((path, following))
    return names, assignments
