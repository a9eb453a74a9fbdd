"""`uiat evaluate`: a model on test images, under named attacks."""

from uiat.cli import options
from uiat.cli.judging import FILE, check_writable, judge, logged
from uiat.cli.output import console
from uiat.cli.parallel import processes
from uiat.cli.subject import Asked, first_images, subject
from uiat.cli.tables import results_table
from uiat.config import Run
from uiat.data import ImageSet, open_data

__all__ = ["FILE", "evaluate", "judged_images", "results_table"]


def evaluate(
    run: options.RunFolder = None,
    model: options.ModelName = None,
    width: options.Width = None,
    weights: options.Weights = None,
    normalize: options.Normalize = False,
    data: options.DataName = None,
    root: options.Root = None,
    image_size: options.ImageSize = None,
    n: options.Count = None,
    which: options.Which = "best",
    threat: options.Ball = None,
    attacks: options.Attacks = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    own_code: options.OwnCode = False,
    transfer: options.Transfer = None,
    epsilons: options.Epsilons = None,
    sweep_attack: options.SweepAttack = "pgd-20",
    norms: options.Norms = None,
    norms_attack: options.NormsAttack = "autoattack-quick",
    corruptions: options.Corruptions = None,
    out: options.Out = None,
    resume: options.Resume = False,
    json: options.Json = None,
    save_examples: options.Examples = None,
    robustbench_json: options.Bench = None,
    verbose: options.Verbose = False,
    log: options.Log = None,
) -> None:
    """Measure accuracy on test images, as they are and under attack, of a run's model or of any other.

    Example: uiat evaluate runs/digits-uiat --attacks clean,pgd-20,cw-20 --n 500

    Example: uiat evaluate --model net.py:make --weights net.pth --data cifar10 --threat linf:8/255 --attacks autoattack

    The result goes to evaluation.json in RUN or --out, with each image's verdict, the threat model, seed, versions,
    hardware, seconds and passes; an earlier one is kept as evaluation-1.json, -2 and so on. "worst" counts an image as
    right only if it stands under every attack. An evaluation that is stopped or killed goes on with --resume. Under
    torchrun the processes share the images and come to the same result.
    """
    _evaluate(Asked(**locals()))


def _evaluate(asked: Asked) -> None:
    check_writable([asked.json, asked.save_examples, asked.robustbench_json, asked.log])
    with processes() as part:
        out = console(quiet=part.rank > 0)
        what = subject(asked)
        with logged(out, verbose=asked.verbose, file=asked.log if part.rank == 0 else None):
            judge(asked, what, part, out)


def judged_images(run: Run, *, n: int | None = None, root: str | None = None) -> ImageSet:
    """The first n test images of a run's data set; all of them by default, or where there are fewer.

    Example:
        >>> len(judged_images(Run(), n=5))
        5
    """
    data = open_data(run.data.name, "test", root=root or run.data.root, image_size=run.data.image_size)
    return first_images(data, n)
