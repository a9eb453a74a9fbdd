"""Robustness to threat models that a model was not trained for: the other norms, at the usual radii of the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from uiat.checks import Count, check_batch, checked
from uiat.data.catalog import USUAL_THREATS
from uiat.errors import UserError, nearest
from uiat.evaluation.attack_facts import needs_gradient
from uiat.evaluation.evaluator import evaluate
from uiat.evaluation.listener import Progress
from uiat.evaluation.result import EvaluationResult
from uiat.formatting import Summary, percent, threat_record, threat_text
from uiat.models.inspect import Target
from uiat.shapes import Float, Int
from uiat.system.surroundings import neutral_surroundings
from uiat.threat import Threat, parse


@dataclass(frozen=True)
class UnseenResult:
    """Accuracy under several threat models, and under all of them at once.

    Args:
        trained: the threat model of the training, one of the keys of `results`; None where it is not known.
        attack: name of the attack.
        results: the result for each threat model, such as "L2:0.5".

    Example:
        >>> one = EvaluationResult("Linf:0.1", 2, {"clean": 1.0, "worst": 0.5}, {}, ["", "fgsm"], 0)
        >>> two = EvaluationResult("L2:0.5", 2, {"clean": 1.0, "worst": 0.5}, {}, ["fgsm", ""], 0)
        >>> result = UnseenResult("Linf:0.1", "fgsm", {"Linf:0.1": one, "L2:0.5": two})
        >>> result.accuracy
        {'clean': 1.0, 'Linf:0.1': 0.5, 'L2:0.5': 0.5, 'union': 0.0, 'unseen': 0.5}
    """

    trained: str | None
    attack: str
    results: dict[str, EvaluationResult]

    @property
    def broken_by(self) -> list[list[str]]:
        """For each image, the threat models under which it is broken; all of them for one that is wrong as it is."""
        verdicts = {name: result.broken_by for name, result in self.results.items()}
        count = len(next(iter(verdicts.values())))
        return [[name for name, broken in verdicts.items() if broken[i]] for i in range(count)]

    @property
    def accuracy(self) -> dict[str, float]:
        """Clean accuracy, that under each threat model, and that in the worst case over their union.

        Where it is known which one the model was trained for, "unseen" is the worst case over the union of the others,
        if there are any.
        """
        first, broken = next(iter(self.results.values())), self.broken_by
        accuracy = {"clean": first.accuracy["clean"]}
        accuracy |= {name: result.accuracy["worst"] for name, result in self.results.items()}
        accuracy["union"] = sum(not names for names in broken) / len(broken)
        if self.trained is not None and len(self.results) > 1:
            accuracy["unseen"] = sum(not set(names) - {self.trained} for names in broken) / len(broken)
        return accuracy

    def __repr__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def summary(self) -> Summary:
        """Return what `print` shows: the accuracy under each threat model and under their union."""
        n = next(iter(self.results.values())).n
        rows = [(threat_text(name), percent(accuracy)) for name, accuracy in self.accuracy.items()]
        trained = f", trained for {threat_text(self.trained)}" if self.trained is not None else ""
        return Summary(f"{self.attack} under each threat model, {n:,} images{trained}", [("threat", "accuracy"), *rows])

    def to_json(self) -> dict[str, Any]:
        """Return plain values: accuracies, the threat models that break each image, the record of each evaluation."""
        return {
            "trained": self.trained,
            "attack": self.attack,
            "accuracy": self.accuracy,
            "broken_by": self.broken_by,
            "results": {name: result.to_json() for name, result in self.results.items()},
        }


@checked
def usual_threats(data: str) -> tuple[str, ...]:
    """Return the threat models that models for a data set are usually evaluated under, one for each norm.

    Raises:
        UserError: a data set for which there are no usual radii.

    Example:
        >>> usual_threats("cifar10")
        ('Linf:8/255', 'L2:0.5', 'L1:12')
    """
    if data not in USUAL_THREATS:
        known = nearest("data set", data, USUAL_THREATS)
        raise UserError(f"{known}; for others, name the threat models, such as Linf:0.1 and L2:1")
    return USUAL_THREATS[data]


@checked
@neutral_surroundings()
def evaluate_unseen(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    trained: Threat | None = None,
    data: str | None = None,
    threats: Sequence[str] | None = None,
    attack: str = "autoattack-quick",
    batch_size: Count = 500,
    seed: int = 0,
    progress: Progress | None = None,
) -> UnseenResult:
    """Evaluate a model under the threat model of its training and under others, with one attack for all.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1].
        y: labels, int64.
        trained: the threat model of the training; it takes the place of the usual one of its norm.
        data: name of the data set, whose usual radii are taken, see `usual_threats`.
        threats: the threat models themselves instead, such as ["L2:0.5", "L1:12"].
        attack: name of the attack, see `uiat.evaluation.attack`.
        batch_size: images at a time.
        seed: seed of the random starts.
        progress: called after every batch with ("L2:0.5 apgd-ce", images or iterations done, of how many).

    Raises:
        UserError: neither or both of `data` and `threats`, a data set without usual radii, what is not a threat, an
            attack that needs a gradient on a model that has none, and whatever `evaluate` refuses.

    Example:
        >>> import torch
        >>> from uiat.threat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x = torch.rand(8, 1, 2, 2)
        >>> y, options = model(x).argmax(1), {"threats": ["L2:0.2"], "attack": "pgd-5"}
        >>> result = evaluate_unseen(model, x, y, trained=Linf(0.1), **options)
        >>> list(result.accuracy)
        ['clean', 'Linf:0.1', 'L2:0.2', 'union', 'unseen']
    """
    by_name = _choose_threats(trained, data, threats)
    check_batch(x, y)
    if needs_gradient(attack) and not Target(model, x).differentiable:
        # `evaluate` leaves the attack out and says so; here the worst case over none would be the clean accuracy.
        raise UserError(
            f"{attack} needs a gradient, and the model's output has none with respect to its input: take one such as "
            "square-1000"
        )
    results = {
        name: evaluate(
            model,
            x,
            y,
            threat=threat,
            attacks=[attack],
            batch_size=batch_size,
            seed=seed,
            progress=_prefix(progress, name),
            selfchecks=False,
        )
        for name, threat in by_name.items()
    }
    first = None if trained is None else next(iter(by_name))
    return UnseenResult(first, attack, results)


def _choose_threats(trained: Threat | None, data: str | None, threats: Sequence[str] | None) -> dict[str, Threat]:
    """Return threat models by name: the trained one first, then those of the other norms, or all that are given."""
    if (data is None) == (threats is None):
        raise UserError("give either the data set's name, for its usual threats, or the threats themselves")
    if isinstance(threats, str):
        raise UserError(f"threats must be a list, such as {threats.split(',')}, not the text {threats!r}")
    given = {text: parse(text) for text in (usual_threats(data) if data is not None else threats or ())}
    by_name: dict[str, Threat] = {}
    if trained is not None:
        # In the words of the list where it is in it: "Linf:8/255" reads better than a decimal fraction.
        same = [text for text, threat in given.items() if threat == trained]
        by_name[same[0] if same else threat_record(trained)] = trained
    for text, threat in given.items():
        replaced = data is not None and trained is not None and threat.norm == trained.norm
        if not replaced and threat not in by_name.values():
            by_name[text] = threat
    if not by_name:
        raise UserError("threats must name at least one")
    return by_name


def _prefix(progress: Progress | None, threat: str) -> Progress | None:
    return None if progress is None else lambda name, done, total: progress(f"{threat} {name}", done, total)
