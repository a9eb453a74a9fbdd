"""Options of an evaluation, each with its help text; the command line is built from this one definition."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uiat.checks import checked_fields
from uiat.data import NAMES
from uiat.errors import UserError
from uiat.evaluation import registry
from uiat.evaluation.bracket import Width
from uiat.evaluation.engine.calls import CallRule


def _option(
    help: str,
    default: Any = None,
    *,
    metavar: str | None = None,
    flags: tuple[str, ...] = (),
    by_default: str | None = None,
    at_least: int | None = None,
) -> Any:
    """Return a field of EvaluateOptions, with all that a command line says of it.

    Args:
        help: help text of the option.
        default: value where the option is left out.
        metavar: name of the value in the help text, such as FILE.
        flags: names of the option on the command line; made from the field's name by default.
        by_default: the value where the option is left out, in words.
        at_least: smallest value of a number.
    """
    facts = {"help": help, "metavar": metavar, "flags": flags, "by_default": by_default, "at_least": at_least}
    return field(default=default, metadata=facts)


@checked_fields
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `uiat evaluate`, which `uiat evaluate --help` explains.

    Example:
        >>> EvaluateOptions(run=Path("runs/mine"), attacks="pgd-20").which
        'best'
    """

    run: Path | None = _option("A run folder; or --model.", metavar="RUN")
    model: str | None = _option(
        "A built-in model, wrn-D-K, timm:NAME, torchvision:NAME, transformers:FOLDER, or your own code: "
        "file.py:function or package.module:function, called as function(num_classes=, image_shape=); it takes images "
        "in [0, 1].",
        metavar="NAME",
    )
    width: str | None = _option("Width of a built-in --model: channels (16) or a factor (0.5).", metavar="NUMBER")
    weights: Path | None = _option(
        "Weights of --model: .safetensors, or a .pth or .pt of tensors alone; nothing in it is run.", metavar="FILE"
    )
    normalize: bool = _option(
        "The --model expects normalised images: put the data set's mean and deviation before it.",
        False,
        flags=("--normalize",),
    )
    data: str | None = _option(
        f"Test images: {', '.join(NAMES)}; or your own, as file.py:NAME or package.module:NAME, a function called with "
        '"test" that returns (images, labels), a dataset or any iterable of batches.',
        metavar="NAME",
        by_default="that of the run",
    )
    root: str | None = _option(
        "Folder of the data sets.", metavar="DIR", flags=("--data.root",), by_default="that of the run"
    )
    image_size: int | None = _option("Side that images of imagefolder:PATH or hf:FOLDER are cut to.", metavar="PIXELS")
    # Also -n and --log-file: torchrun takes --n and --log for the beginnings of options of its own.
    n: int | None = _option(
        "Number of images, the first of the test set; of an image folder a stratified sample.",
        metavar="N",
        flags=("--n", "-n"),
        by_default="as the run says, or all",
        at_least=1,
    )
    which: str = _option("Weights of the best epoch on held-out images, or of the last.", "best", metavar="best|last")
    threat: str | None = _option(
        "Threat model, such as Linf:8/255, L2:0.5 or L1:12, in units of the image range [0, 1].",
        metavar="NORM:RADIUS",
        by_default="that of the run",
    )
    attacks: str | None = _option(
        f"Separated by commas: {registry.help_text()}; your own, as file.py:NAME or package.module:NAME, a "
        "function of (model, x, y) that returns images; another library's, as torchattacks:NAME, foolbox:NAME, "
        "art:NAME or advlib:NAME, also with arguments: torchattacks:PGD(steps=20).",
        metavar="NAMES",
        by_default="those of the run; clean,pgd-20,cw-20",
    )
    batch_size: int | None = _option(
        "Images at a time, at most: on a CPU fewer where that is faster.",
        metavar="N",
        by_default="as the run says; 500",
        at_least=1,
    )
    seed: int = _option("Seed of the random numbers.", 0, metavar="N")
    calls: int = _option(
        "Of a model that answers at random: fresh calls on each example, the mean over which is its accuracy; with "
        "attacks that average, such as pgd-20-eot-20.",
        1,
        metavar="M",
        at_least=1,
    )
    wrong_calls: int | None = _option(
        "How many of these --calls have to be wrong to break an image.",
        metavar="N",
        by_default="more than half",
        at_least=1,
    )
    until: Width | None = _option(
        "Take the images in random order, and stop once the 95 % interval of the worst case on all of them is no wider "
        "than this, such as 0.05; --save-examples and --calls go through all.",
        metavar="WIDTH",
    )
    device: str | None = _option(
        "Device: auto, cpu, cuda, cuda:1, mps.", metavar="NAME", by_default="that of the run; auto"
    )
    own_code: bool = _option(
        "Let the run name Python code that builds the model or opens the data.", False, flags=("--own-code",)
    )
    changed_code: bool = _option(
        "The same, for code that is not what the run began with.", False, flags=("--changed-code",)
    )
    transfer: Path | None = _option(
        "Also attack with examples made on this run's model (PGD, 50 steps).", metavar="RUN"
    )
    transfer_own_code: bool = _option(
        "Let the run of --transfer name Python code that builds its model; --own-code does not.",
        False,
        flags=("--transfer-own-code",),
    )
    epsilons: str | None = _option(
        "Also sweep the radius, in units of [0, 1], ascending: 0,2/255,...,16/255. Below 0 the attack helps the model.",
        metavar="LIST",
    )
    sweep_attack: str = _option("The attack of --epsilons.", "pgd-20", metavar="NAME")
    norms: str | None = _option(
        "Also measure under threats it was not trained for: the usual radii of the data set for the other norms, or "
        "L2:0.5,L1:12.",
        metavar="usual|LIST",
    )
    norms_attack: str = _option("The attack of --norms.", "autoattack-quick", metavar="NAME")
    corruptions: str | None = _option(
        "Also measure under the 15 common corruptions at 5 severities, or under some: fog,jpeg_compression.",
        metavar="all|LIST",
    )
    corruption_files: Path | None = _option(
        "Also measure on published corrupted images: the folder of CIFAR-10-C, CIFAR-100-C or ImageNet-C.",
        metavar="DIR",
    )
    certify: str | None = _option(
        "Also certify: bounds (interval and linear, Linf, of small ReLU networks: [certified, attacked]), also meant "
        "without NAMES; smoothing-SIGMA or smoothing-SIGMA-N (L2 radii of the model under Gaussian noise, by N noisy "
        "images of each, 10,000). Among --attacks they are called certify-bounds and so on.",
        metavar="[NAMES]",
    )
    out: Path | None = _option(
        "Folder for evaluation.json and the state of an evaluation under way.",
        metavar="DIR",
        by_default="RUN; with --model none, and nothing is kept",
    )
    resume: bool = _option(
        "Resume an evaluation that was stopped or killed, to the same result.", False, flags=("--resume",)
    )
    json: Path | None = _option(
        "Write the result here as well as to evaluation.json; without FILE, print it on standard output, and anything "
        "else on standard error.",
        metavar="[FILE]",
    )
    save_examples: Path | None = _option(
        "Write the adversarial examples here, as .safetensors: x_adv, y, broken.", metavar="FILE"
    )
    robustbench_json: Path | None = _option(
        "Write the result here in the shape of RobustBench's model_info.", metavar="FILE"
    )
    verbose: bool = _option(
        'Print the log: "robust accuracy after APGD-CE: 45.00%" and the like, for scripts.',
        False,
        flags=("--verbose", "-v"),
    )
    log: Path | None = _option("Add the log to a file.", metavar="FILE", flags=("--log-file",))

    def __post_init__(self) -> None:
        CallRule(calls=self.calls, wrong=self.wrong_calls)  # refuses what cannot be before any work
        if self.until is not None and (self.calls > 1 or self.save_examples is not None):
            other = "--calls" if self.calls > 1 else "--save-examples"
            raise UserError(f"both --until and {other}: that goes through all images, and --until stops before")
