"""Compare accuracies with published ones: how far from one may a number lie before it should be doubted?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uiat.report.groups import Group
from uiat.runs.methods import method_name
from uiat.runs.run_files import RunFiles

# Independent re-runs of one method agree to about a point, in percent (PGD-AT on ResNet-18: 48.3 to 48.7 under the
# standard ensemble, 52.6 to 53.6 under PGD-10).
TOLERANCE = 1.0
WHOLE = 10_000  # number of test images on which the published numbers are measured
ENSEMBLE = "autoattack"
RESNET18 = ("resnet18", "preact-resnet18")
MAIR, LOGS, AWP, DHAT, INSTANCE, BENCH, QUB = (
    "MAIR's benchmark table",
    "logs of robust_overfitting",
    "logs of AWP's authors",
    "a table in DHAT (ICCV 2025)",
    "DHAT's re-run of UIAT, with instance-wise inverse adversaries",
    "RobustBench",
    "a table in QUB (ICML 2025)",
)


@dataclass(frozen=True)
class Reference:
    """An accuracy in percent that others have published, between `low` and `high`: Linf 8/255, no further data.

    Args:
        models: names of the architectures it holds for.
        method: name of the method, as `uiat.runs.methods.method_name` gives it.
        attack: name of the attack, as `uiat evaluate` gives it.
        low: the lowest published value.
        high: the highest published value.
        source: where it was published.
        data: name of the data set.

    Example:
        >>> Reference(("resnet18",), "mart", "autoattack", 47.51, 47.51, "MAIR").text
        '47.5'
    """

    models: tuple[str, ...]
    method: str
    attack: str
    low: float
    high: float
    source: str
    data: str = "cifar10"

    @property
    def text(self) -> str:
        """The range, to a tenth of a point."""
        return f"{self.low:.1f}" if f"{self.low:.1f}" == f"{self.high:.1f}" else f"{self.low:.1f}–{self.high:.1f}"


def _of(models: tuple[str, ...], method: str, data: str = "cifar10", /, **rows: tuple[float, float, str]) -> list[Any]:
    return [Reference(models, method, name.replace("_", "-"), *row, data) for name, row in rows.items()]


_WRN28, _WRN34 = ("wrn-28-10",), ("wrn-34-10",)
PUBLISHED: tuple[Reference, ...] = (
    *_of(RESNET18, "pgd-at", clean=(81.3, 82.9, LOGS), pgd_10=(52.6, 53.6, LOGS), pgd_20=(51.8, 52.8, AWP)),
    *_of(RESNET18, "pgd-at", autoattack=(48.3, 48.7, f"{MAIR}; {QUB}")),
    *_of(RESNET18, "trades", clean=(82.1, 82.1, QUB), pgd_10=(53.5, 53.5, MAIR), autoattack=(49.4, 50.2, MAIR)),
    *_of(RESNET18, "mart", pgd_10=(54.7, 54.7, MAIR), autoattack=(47.5, 47.5, MAIR)),
    *_of(RESNET18, "pgd-at-awp", clean=(81.2, 81.2, AWP), pgd_20=(55.4, 55.4, AWP), autoattack=(50.8, 50.8, MAIR)),
    *_of(RESNET18, "trades-awp", pgd_10=(55.9, 55.9, MAIR), autoattack=(51.6, 51.6, MAIR)),
    *_of(RESNET18, "mart-awp", pgd_10=(57.6, 57.6, MAIR), autoattack=(50.0, 50.0, MAIR)),
    *_of(RESNET18, "fgsm-rs", clean=(83.3, 83.3, BENCH), pgd_50_10=(46.1, 46.1, BENCH), autoattack=(43.2, 43.2, BENCH)),
    *_of(RESNET18, "n-fgsm", clean=(81.2, 81.2, QUB), pgd_50_10=(47.4, 47.4, QUB), autoattack=(45.2, 45.2, QUB)),
    *_of(RESNET18, "grad-align", clean=(79.8, 79.8, BENCH), pgd_50_10=(44.5, 44.5, BENCH)),
    *_of(RESNET18, "grad-align", autoattack=(43.9, 43.9, BENCH)),
    *_of(_WRN28, "pgd-at", pgd_10=(56.0, 56.0, MAIR), autoattack=(52.0, 52.1, MAIR)),
    *_of(_WRN28, "trades", pgd_10=(56.8, 56.8, MAIR), autoattack=(52.8, 52.8, MAIR)),
    *_of(_WRN28, "mart", clean=(83.0, 83.0, DHAT), pgd_10=(56.2, 57.7, MAIR), autoattack=(50.7, 51.3, MAIR)),
    *_of(_WRN28, "pgd-at-awp", clean=(82.7, 82.7, DHAT), pgd_10=(57.8, 58.7, MAIR), autoattack=(51.9, 54.3, MAIR)),
    *_of(_WRN28, "trades-awp", pgd_10=(59.5, 59.5, MAIR), autoattack=(55.8, 55.9, MAIR)),
    *_of(_WRN28, "iat", clean=(82.9, 82.9, INSTANCE), pgd_10=(58.7, 58.7, INSTANCE)),
    *_of(_WRN28, "iat", autoattack=(52.2, 52.2, INSTANCE)),
    *_of(_WRN28, "iat", "cifar100", clean=(57.6, 57.7, INSTANCE), pgd_10=(34.3, 34.3, INSTANCE)),
    *_of(_WRN28, "iat", "cifar100", autoattack=(29.0, 29.0, INSTANCE)),
    *_of(_WRN34, "pgd-at", clean=(86.1, 86.1, LOGS), pgd_10=(56.2, 56.8, LOGS), autoattack=(52.7, 52.7, MAIR)),
    *_of(_WRN34, "trades", clean=(84.9, 85.5, BENCH), pgd_10=(56.7, 56.7, MAIR), autoattack=(53.1, 53.8, BENCH)),
    *_of(_WRN34, "mart", pgd_10=(57.6, 57.6, MAIR), autoattack=(51.9, 51.9, MAIR)),
    *_of(_WRN34, "pgd-at-awp", clean=(86.2, 86.2, AWP), autoattack=(54.0, 55.7, f"{AWP}; {MAIR}")),
    *_of(_WRN34, "trades-awp", clean=(85.4, 85.4, BENCH), autoattack=(56.1, 56.2, BENCH)),
    *_of(_WRN34, "free-8", clean=(86.1, 86.1, BENCH), autoattack=(41.5, 41.5, BENCH)),
)
# What the published runs have in common, by field; what a run's settings leave out is as published. A run that has one
# of these otherwise is another experiment, however like its method's name.
USUAL: Mapping[str, Any] = {
    "model.width": None,
    "model.weights": None,
    "model.pretrained": False,
    "data.extra": None,
    "model.activation": "relu",
    "data.subset": None,
    "data.image_size": None,
    "objective.label_smoothing": 0.0,
    "objective.attack.threat.norm": "Linf",
    "objective.attack.threat.epsilon": "8/255",
    "optimisation.average": "none",
}
WEIGHTS = {"trades": 6.0, "mart": 5.0, "uiat": 3.5}  # of the objectives' second terms in the published runs


def is_as_published(run: RunFiles) -> bool:
    """True if a run is like the published ones in what its method's name does not say.

    Example:
        >>> from pathlib import Path
        >>> is_as_published(RunFiles(Path("runs/a"), {"optimisation": {"average": "ema"}}))
        False
    """
    weight = WEIGHTS.get(str(run.setting("objective.name")))
    same = all(_is_same(run.setting(path, usual), usual) for path, usual in USUAL.items())
    return same and run.setting("objective.weight", weight) == weight


def _is_same(value: Any, usual: Any) -> bool:
    """True if two settings are equal; a radius may be written as a decimal."""
    if usual == "8/255" and isinstance(value, int | float):
        return abs(255 * value - 8) < 0.01
    return bool(value == usual)


@dataclass(frozen=True)
class Compared:
    """An accuracy beside the published one.

    Args:
        attack: name of the attack.
        value: accuracy, the mean over the group's seeds, in percent.
        published: the published accuracy.
        tolerance: how far outside of the published range the value may lie, in points.

    Example:
        >>> published = Reference(("resnet18",), "pgd-at", "autoattack", 48.3, 48.7, "MAIR")
        >>> Compared("autoattack", 50.9, published, 1.0).assessment
        'suspicious: more than published'
    """

    attack: str
    value: float
    published: Reference
    tolerance: float

    @property
    def assessment(self) -> str:
        """In words, the position of the value: within the published range and its tolerance, above or below."""
        if self.value > self.published.high + self.tolerance:
            return "suspicious: more than published"
        if self.value < self.published.low - self.tolerance:
            return "less than published"
        return "agrees"

    @property
    def short(self) -> str:
        """The published accuracy and the tone, for a cell of a table."""
        return f"published {self.published.text}: {self.tone}"

    @property
    def tone(self) -> str:
        """The assessment in a word: "agrees", "suspicious" or "less"."""
        return self.assessment.replace(":", " ").split()[0]


def compare(group: Group) -> dict[str, Compared]:
    """Compare each accuracy of a group with the published one for its data, model, method and threat model, if any.

    Where fewer than 10,000 images were evaluated, half of the 95 % interval comes on top of the tolerance.

    Example:
        >>> from pathlib import Path
        >>> config = {"data": {"name": "cifar10"}, "model": {"name": "resnet18"}, "objective": {"name": "pgd-at"}}
        >>> result = {"data": "cifar10", "threat": "Linf:0.03137255", "n": 10000, "accuracy": {"autoattack": 0.509}}
        >>> group = Group((RunFiles(Path("runs/a"), config, evaluation=result),), "a")
        >>> compare(group)["autoattack"].short
        'published 48.3–48.7: suspicious'
    """
    run, result = group.first, group.evaluation
    if result is None or not _is_usual_threat(str(result["threat"])) or not is_as_published(run):
        return {}
    compared = {}
    for published in PUBLISHED:
        fits = run.setting("model.name") in published.models and method_name(run.config) == published.method
        values = group.values(published.attack)
        if fits and values and result.get("data") == run.setting("data.name") == published.data:
            value = sum(values) / len(values)
            tolerance = TOLERANCE + _sampling(value, int(result["n"]))
            compared[published.attack] = Compared(published.attack, value, published, tolerance)
    return compared


def _is_usual_threat(threat: str) -> bool:
    norm, _, radius = threat.partition(":")
    try:
        return norm == "Linf" and abs(255 * float(radius) - 8) < 0.01
    except ValueError:
        return False


def _sampling(value: float, n: int) -> float:
    """Return half of the 95 % interval of an accuracy in percent on n images; 0 on a whole test set."""
    p = min(max(value / 100, 0.0), 1.0)
    return 0.0 if n >= WHOLE or n == 0 else 196 * float((p * (1 - p) / n) ** 0.5)
