"""An evaluation with the self-checks that say whether it is to be believed: what users call."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor, nn

from uiat.evaluation import judge
from uiat.evaluation.records import EvaluationResult
from uiat.evaluation.selfcheck import examine, verdict
from uiat.processes import share
from uiat.threat import Threat

CHECKS = "self-checks"  # as progress names them


def evaluate(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    threat: Threat,
    attacks: Sequence[str] = ("clean", "pgd-20", "cw-20"),
    batch_size: int = 500,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    bound: Callable[[str, float], None] | None = None,
    state: Path | None = None,
    resume: bool = False,
    keep_examples: bool = False,
    transfer: nn.Module | None = None,
    selfchecks: bool = True,
) -> EvaluationResult:
    """Accuracy of a model on images under each attack by name, in the worst case over them, and whether to believe it.

    An image misclassified as it is counts as broken under every attack. Otherwise it counts as broken by an attack when
    the model, in eval mode, misclassifies the attack's example (in the ball, in [0, 1]). Of a model without a gradient,
    the accuracy under attacks that need one is not in the result: a warning names them, and the verdict says why. Under
    `torchrun` each process takes its share of the images, and all return the same result.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1], on the model's device or moved there batch by batch.
        y: labels, int64.
        threat: the threat model.
        attacks: names, see `uiat.evaluation.attack`, such as "autoattack"; "clean" is always measured.
        batch_size: images at a time, at most: on a CPU fewer where that is faster, and half as many where memory runs
            out; the result says how many.
        seed: of the random numbers; each image has its own, whatever the batch size and the number of processes.
        progress: called after every batch or round with (attack, images or iterations done, of how many).
        bound: likewise with (stage, accuracy in the worst case at most).
        state: a file that is written after each attack and every few minutes inside one; delete it in the end.
        resume: go on from that file, to the result that the evaluation would have had.
        keep_examples: keep the adversarial examples in the result.
        transfer: a second model; adds the attack "transfer", with examples made on that model.
        selfchecks: look for what makes a robust accuracy look higher than it is (`uiat.evaluation.examine`) and put the
            verdict into the result; costs less than a thousand forward passes on each of 128 images. Without an attack
            nothing is claimed, and nothing is checked.

    Raises:
        UserError: an unknown attack, images or labels that do not fit, a model that does not return logits, a state
            file that is in the way, damaged, or of another evaluation, a second model with other classes.

    Example:
        >>> import torch
        >>> from uiat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> result = evaluate(model, torch.rand(8, 1, 2, 2), torch.arange(8) % 2, threat=Linf(0.1), attacks=["fgsm"])
        >>> result.accuracy["worst"] == result.accuracy["fgsm"], len(result.intervals["worst"])
        (True, 2)
        >>> "8 images" in result.verdict
        True
    """
    result = judge.evaluate(
        model,
        x,
        y,
        threat=threat,
        attacks=attacks,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        bound=bound,
        state=state,
        resume=resume,
        keep_examples=keep_examples,
        transfer=transfer,
    )
    if selfchecks and (transfer is not None or set(attacks) - {"clean"}):
        return replace(result, verdict=_verdict(model, x, y, threat, result, transfer, progress))
    return result


def _verdict(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    result: EvaluationResult,
    transfer: nn.Module | None,
    progress: Callable[[str, int, int], None] | None,
) -> str:
    """Of the self-checks; the first of several processes makes them for all."""
    part, said = share(), ""
    if part.rank == 0:
        told = progress or (lambda name, done, total: None)
        told(CHECKS, 0, 1)
        said = verdict(examine(model, x, y, threat=threat, result=result, transfer=transfer, seed=result.seed))
        told(CHECKS, 1, 1)
    return part.gather(said)[0]
