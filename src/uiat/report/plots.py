"""The figures of a report, each with its values as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from uiat.report import charts
from uiat.report.groups import Group
from uiat.report.reading import RunFiles
from uiat.report.samples import Samples, class_names

# By epoch: the name in metrics.jsonl, what it is, and whether it is a share of images.
MEASURED = (
    ("robust", "Robust accuracy, held-out images", True),
    ("clean", "Clean accuracy, held-out images", True),
    ("train_correct", "Accuracy on the training batches", True),
)


@dataclass(frozen=True)
class Figure:
    """A figure with its caption, and the same as a table where a reader may want the numbers.

    Args:
        caption: below it.
        svg: the drawing.
        head: headings of the table.
        rows: its rows.

    Example:
        >>> Figure("accuracy", Markup("<svg></svg>")).rows
        []
    """

    caption: str
    svg: Markup
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)


def training(groups: Sequence[Group]) -> list[Figure]:
    """Curves by epoch: of accuracy on held-out images, of accuracy and loss on the training batches.

    Example:
        >>> training([])
        []
    """
    figures = []
    for name, title, share in (*MEASURED, ("loss", "Training loss, all terms", False)):
        series = _by_epoch(groups, name)
        if any(one.points for one in series):
            svg = charts.curves(
                title, series, x="epoch", y="%" if share else "loss", share=share, described=_ends(series)
            )
            figures.append(Figure(title, svg, *_values(series, "epoch", 100 if share else 1)))
    return figures


def _by_epoch(groups: Sequence[Group], name: str) -> list[charts.Series]:
    series = []
    for slot, group in enumerate(groups):
        for run in group.runs:
            pairs = [(float(row["epoch"] + 1), _measure(row, name)) for row in run.history]
            points = tuple((x, y) for x, y in pairs if y is not None)
            series.append(charts.Series(_named(group, run), points, slot))
    return series


def _measure(row: Mapping[str, Any], name: str) -> float | None:
    if name != "loss":
        return row.get(name)
    terms = [v for k, v in row.items() if k.startswith("train_") and k != "train_correct" and v is not None]
    return sum(terms) if terms else None


def _ends(series: Sequence[charts.Series]) -> str:
    return "; ".join(f"{s.label} ends at {s.points[-1][1]:.3g}" for s in series if s.points)


def _values(series: Sequence[charts.Series], x: str, factor: float) -> tuple[list[str], list[list[str]]]:
    """The points as a table: a row for each x."""
    places = sorted({point[0] for s in series for point in s.points})
    known = [dict(s.points) for s in series]
    rows = [[f"{p:.6g}", *("–" if p not in k else f"{factor * k[p]:.4g}" for k in known)] for p in places]
    return [x, *(s.label for s in series)], rows


def strength(groups: Sequence[Group]) -> list[Figure]:
    """Accuracy against the radius of the attack, for runs whose result has a sweep; one figure a norm and attack.

    Example:
        >>> strength([])
        []
    """
    by_kind: dict[tuple[str, str, str], list[charts.Series]] = {}
    for slot, group in enumerate(groups):
        for run in group.runs:
            record = (run.evaluation or {}).get("sweep")
            if isinstance(record, dict) and record.get("epsilons") and record.get("accuracy"):
                scale, unit = _unit(record)
                pairs = zip(record["epsilons"], record["accuracy"], strict=False)
                points = tuple((scale * float(e), float(a)) for e, a in pairs)
                kind = (str(record.get("norm")), str(record.get("attack")), unit)
                by_kind.setdefault(kind, []).append(charts.Series(_named(group, run), points, slot))
    figures = []
    for (norm, attack, unit), series in by_kind.items():
        title = f"Accuracy under {attack} at each {norm} radius"
        svg = charts.curves(title, series, x=unit, y="%", share=True, described=_ends(series))
        figures.append(Figure(f"{title}; below 0 it helps the model", svg, *_values(series, unit, 100)))
    return figures


def _unit(record: Mapping[str, Any]) -> tuple[int, str]:
    """Linf radii in pixel values where they are whole ones, as people write 8/255; all others as they are."""
    pixels = [255 * float(epsilon) for epsilon in record["epsilons"]]
    whole = record.get("norm") == "Linf" and all(abs(value - round(value)) < 1e-3 for value in pixels)
    return (255, "radius / 255") if whole else (1, "radius")


def _named(group: Group, run: RunFiles) -> str:
    return group.label if len(group.runs) == 1 else f"{group.label}, seed {run.setting('seed')}"


def classes(groups: Sequence[Group], samples: Mapping[Path, Samples]) -> list[Figure]:
    """Accuracy of each class, of the first run of each group.

    Example:
        >>> classes([], {})
        []
    """
    figures = []
    for group in groups:
        shares = (group.evaluation or {}).get("per_class") or {}
        clean, worst = shares.get("clean"), shares.get("worst")
        if clean and worst and len(clean) == len(worst):
            names = class_names(group.first.folder, samples, len(clean))
            rows = [[name, *(_share(v) for v in pair)] for name, *pair in zip(names, clean, worst, strict=True)]
            hardest = min((v, n) for n, v in zip(names, worst, strict=True) if v is not None)
            svg = charts.class_bars(f"Accuracy by class, {group.label}. Hardest: {hardest[1]}", names, clean, worst)
            figures.append(Figure(group.label, svg, ["class", "clean, %", "worst, %"], rows))
    return figures


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def confusions(groups: Sequence[Group], samples: Mapping[Path, Samples]) -> list[Figure]:
    """Which class is taken for which under attack, for runs with samples.

    Example:
        >>> confusions([], {})
        []
    """
    figures = []
    for group in groups:
        found = samples.get(group.first.folder)
        if found is not None and found.n:
            title = f"{group.label}: {found.attack}, {found.n:,} images"
            svg = charts.matrix(f"Confusion under attack, {title}", found.classes, found.confusion)
            figures.append(Figure(title, svg))
    return figures
