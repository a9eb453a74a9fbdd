"""The accuracy of each row under each attack, and which are the best, as far as their errors tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from uiat.formatting import mean_and_deviation, plus_minus
from uiat.report.groups import Group, attack_names

BOLD = (
    "Bold: the best, and what is within the error of it (the standard deviation over seeds or, of a single run, the "
    "standard error of a fraction of n images)."
)


@dataclass(frozen=True)
class Score:
    """The accuracy of a row under one attack.

    Args:
        mean: mean over the runs, in percent.
        deviation: standard deviation over the runs; None for a single run.
        error: the deviation; of a single run, the standard error of a fraction of its images.
        is_best: True for the highest of the rows that compare, and for those within the error of it.

    Example:
        >>> Score(50.0, 1.5, 1.5, is_best=True).text
        '50.00 ± 1.50'
    """

    mean: float
    deviation: float | None
    error: float
    is_best: bool = False

    @property
    def text(self) -> str:
        """The mean and the deviation, with two digits."""
        return plus_minus(self.mean, self.deviation, scale=1, digits=2)


def score_groups(groups: Sequence[Group]) -> list[dict[str, Score]]:
    """Return the scores of each group by attack; the best are told among those of the same images and threat model.

    Example:
        >>> score_groups([])
        []
    """
    scores = [{name: _score(group, name) for name in attack_names([group]) if group.values(name)} for group in groups]
    return [{name: _compare(i, name, groups, scores) for name in found} for i, found in enumerate(scores)]


def _score(group: Group, attack: str) -> Score:
    n = (group.evaluation or {}).get("n", 0)
    mean, deviation = mean_and_deviation(group.values(attack))
    error = math.sqrt(max(mean * (100 - mean), 0.0) / n) if deviation is None else deviation
    return Score(mean, deviation, error)


def _measured_on(group: Group) -> list[object]:
    """Return what two numbers must have in common to compare."""
    return [(group.evaluation or {}).get(name) for name in ("n", "data", "threat")]


def _compare(i: int, attack: str, groups: Sequence[Group], scores: Sequence[dict[str, Score]]) -> Score:
    """Return a group's score with whether it is the best; a doubtful number is never that, nor one without a rival."""
    score = scores[i][attack]
    rivals = [
        other[attack]
        for group, other in zip(groups, scores, strict=True)
        if attack in other and group.verdict != "doubtful" and _measured_on(group) == _measured_on(groups[i])
    ]
    if groups[i].verdict == "doubtful" or len(rivals) < 2:
        return score
    best = max(rivals, key=lambda rival: rival.mean)
    return replace(score, is_best=best.mean - score.mean <= math.hypot(best.error, score.error))
