"""The result of an evaluation, and its statistics: intervals, accuracy by class, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uiat.checks import checked_fields
from uiat.evaluation.bracket import sentence_on_until
from uiat.evaluation.record import EVALUATION_FILE, keep_earlier, which_weights, write_record
from uiat.formatting import Summary, percent, threat_text
from uiat.shapes import Bool, Float, Int
from uiat.system.environment import describe_environment

BINS = 15  # of the expected calibration error, as in Guo et al. (2017)


@checked_fields
@dataclass(frozen=True)
class EvaluationResult:
    """The accuracies of an evaluation, with the threat model, the images, the attacks and the hardware.

    Args:
        threat: the threat model, such as "Linf:0.0313725".
        n: number of images.
        accuracy: fraction of images still correct, for each attack and in the "worst" case over all of them.
        seconds: time of each attack; with several processes, of the slowest.
        broken_by: for each image, the first attack that broke it, an ensemble's by the stage; "" for a robust one.
        seed: seed of the random starts.
        environment: versions and hardware.
        stages: for each ensemble, the accuracy after each of its attacks.
        passes: for each stage, the images that went "forward" through the model and "backward" to its input.
        stage_seconds: time of each stage.
        intervals: for each accuracy, the 95 % interval (Wilson 1927) for images of the same kind.
        per_class: for each accuracy, that of each class; None for a class of which there is no image.
        fairness: for each accuracy, its `class_spread`.
        calibration: "ece", the expected calibration error on the images as they are, and its "bins"; under "attacked"
            that on the examples of each attack that ends in one for every image: FGSM, PGD, CW, attacks from outside.
        budgets: settings of each stage.
        projected: for each attack from outside, the number of its examples that left the ball or [0, 1].
        warnings: what a reader should know, such as memory that ran out.
        verdict: the verdict of the self-checks, where they were run.
        batch_size: images that went through the model at once, in the end: at most as many as were asked for.
        processes: number of processes among which the images were divided.
        sums: sha256 of the "weights", "images" and "labels" that the result is of.
        examples: for each image the adversarial example that broke it, or itself; where they were asked for.
        calls: of a model that answers at random, evaluated in several calls: `calls` and how many of them have to be
            `wrong` to break an image; the number of `tests` an image went through; `error_at_least`, the 95 % lower
            bound on how often a broken image is misclassified (Clopper & Pearson 1934, for all tests together);
            `by_chance`, the probability that the rule breaks an image that is misclassified half of the time; the mean
            `accuracy` over further calls on the hardest example of each image, by attack, with its `intervals` over
            calls; and of the worst case the number of `wrong_calls` of each image.
        until: of an evaluation of images in random order that may stop early: the `width` of the interval that was
            asked for, whether it `stopped` before the end, the `seed` of the order, how many images there are (`of`),
            were `done` and stayed `robust`, and the `bounds` and the 95 % `interval` of the worst case on all.

    Example:
        >>> result = EvaluationResult("Linf:0.1", 2, {"clean": 1.0, "worst": 0.5}, {"clean": 0.1}, ["", "fgsm"], 0)
        >>> result.accuracy["worst"]
        0.5
    """

    threat: str
    n: int
    accuracy: dict[str, float]
    seconds: dict[str, float]
    broken_by: list[str]
    seed: int
    environment: dict[str, Any] = field(default_factory=describe_environment)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    passes: dict[str, dict[str, int]] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    per_class: dict[str, list[float | None]] = field(default_factory=dict)
    fairness: dict[str, dict[str, float]] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    projected: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    verdict: str = ""
    batch_size: int | None = None
    processes: int = 1
    sums: dict[str, str] = field(default_factory=dict)
    examples: Tensor | None = field(default=None, repr=False, compare=False)
    calls: dict[str, Any] = field(default_factory=dict)
    until: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def summary(self) -> Summary:
        """Return what `print` shows: the accuracy under each attack and in the worst case, and the verdict.

        Example:
            >>> print(EvaluationResult("Linf:0.1", 2, {"clean": 1.0, "worst": 0.5}, {}, ["", "fgsm"], 0))
            2 images, threat model Linf 0.1, seed 0
            attack  accuracy  95 % interval
            clean   100.00 %
            worst    50.00 %
        """
        edges = {name: f"{100 * low:.2f} - {100 * high:.2f}" for name, (low, high) in self.intervals.items()}
        rows: list[tuple[str, ...]] = [
            (name, percent(accuracy), edges.get(name, "")) for name, accuracy in self.accuracy.items()
        ]
        columns: tuple[str, ...] = ("attack", "accuracy", "95 % interval")
        if self.calls:
            columns = (*columns, f"mean of {self.calls['calls']} calls")
            rows = [(*row, mean_of_calls(self.calls, row[0])) for row in rows]
        absent = [str(label) for label, value in enumerate(self.per_class.get("clean", ())) if value is None]
        unseen = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        lines = [f"no image of class {unseen}, counted from 0"] if absent else []
        lines += [sentence_on_calls(self.calls)] if self.calls else []
        lines += [sentence_on_until(self.until)] if self.until else []
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += [f"verdict: {self.verdict}"] if self.verdict else []
        title = f"{self.n:,} images, threat model {threat_text(self.threat)}, seed {self.seed}"
        return Summary(title, [columns, *rows], lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, in the order of the fields; the examples are left out."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "examples"}

    def save(self, folder: str | Path, *, data: str | None = None) -> Path:
        """Write the result to evaluation.json of a run folder, such as one of `uiat.fit`; an earlier one is kept.

        Args:
            folder: a run folder whose best or last weights were evaluated.
            data: name of the images; by default they count as those of the run.

        Returns:
            The file.

        Raises:
            UserError: the folder has other weights, or cannot be written to.

        Example:
            >>> EvaluationResult("Linf:0.1", 1, {"clean": 1.0}, {}, [""], 0).save("missing-run")
            Traceback (most recent call last):
            uiat.errors.UserError: the model that was evaluated has neither the best nor the last weights of missing-run
        """
        path = Path(folder) / EVALUATION_FILE
        facts = {"which": which_weights(path.parent, self.sums.get("weights", "")), "split": "test"}
        record = facts | ({} if data is None else {"data": data}) | self.to_json()
        keep_earlier(path)
        write_record(path, record)
        return path


def mean_of_calls(calls: Mapping[str, Any], name: str) -> str:
    """Return the accuracy as a mean over calls, with its interval, as text; "" where there is none.

    Example:
        >>> mean_of_calls({"accuracy": {"clean": 0.9}, "intervals": {"clean": [0.85, 0.95]}}, "clean")
        '90.00 % (85.00 - 95.00)'
    """
    if name not in calls["accuracy"]:
        return ""
    low, high = calls["intervals"][name]
    return f"{percent(calls['accuracy'][name])} ({100 * low:.2f} - {100 * high:.2f})"


def sentence_on_calls(calls: Mapping[str, Any]) -> str:
    """Say what broken means of a model that answers at random.

    Example:
        >>> sentence_on_calls({"calls": 20, "wrong": 18, "error_at_least": 0.7174, "by_chance": 0.0002})
        'broken: misclassified in 18 of 20 fresh calls, so that its error is at least 71.74 % (95 % bound)'
    """
    rule = f"broken: misclassified in {calls['wrong']} of {calls['calls']} fresh calls"
    return f"{rule}, so that its error is at least {percent(calls['error_at_least'])} (95 % bound)"


def accuracy_by_class(correct: Bool[Tensor, "n"], y: Int[Tensor, "n"], *, classes: int) -> list[float | None]:
    """Compute the accuracy of each class; None where there is no image of it.

    Example:
        >>> accuracy_by_class(torch.tensor([True, False, True]), torch.tensor([0, 0, 2]), classes=3)
        [0.5, None, 1.0]
    """
    total = torch.bincount(y, minlength=classes).tolist()
    hits = torch.bincount(y[correct], minlength=classes).tolist()
    return [hit / count if count else None for hit, count in zip(hits, total, strict=True)]


def calibration_error(confidence: Float[Tensor, "n"], correct: Bool[Tensor, "n"], *, bins: int = BINS) -> float:
    """Compute the expected calibration error: |accuracy - confidence| of each bin, weighted by its images.

    Naeini et al. (2015); Guo et al. (2017) take 15 bins.

    Args:
        confidence: probability of the predicted class.
        correct: mask of the correct predictions.
        bins: number of bins, of equal width over (0, 1]; each holds its upper edge.

    Example:
        >>> calibration_error(torch.tensor([0.9, 0.9, 0.6]), torch.tensor([True, False, True]), bins=2)
        0.133
    """
    if len(confidence) == 0:
        return 0.0
    confidence = confidence.double()
    number = ((confidence * bins).ceil() - 1).clamp(0, bins - 1).long()
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, number, correct.double() - confidence)
    return (gaps.abs().sum() / len(confidence)).item()


def add_by_name(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sum values by name.

    Example:
        >>> add_by_name([{"forward": 2}, {"forward": 3, "backward": 1}])
        {'forward': 5, 'backward': 1}
    """
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
