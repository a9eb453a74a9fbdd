"""The figures of a report, each with its values as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from uiat.report.groups import Group
from uiat.report.images import Samples, class_names
from uiat.report.svg import charts
from uiat.runs.reader import RunFiles


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


def ends(series: Sequence[charts.Series]) -> str:
    """The last values in words.

    Example:
        >>> ends([charts.Series("uiat", ((1, 0.2), (2, 0.4)))])
        'uiat ends at 0.4'
    """
    return "; ".join(f"{s.label} ends at {s.points[-1][1]:.3g}" for s in series if s.points)


def values(series: Sequence[charts.Series], x: str, factor: float) -> tuple[list[str], list[list[str]]]:
    """The points as a table: headings, and a row for each x.

    Example:
        >>> values([charts.Series("uiat", ((1, 0.2), (2, 0.4)))], "epoch", 100)
        (['epoch', 'uiat'], [['1', '20'], ['2', '40']])
    """
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
                by_kind.setdefault(kind, []).append(charts.Series(named(group, run), points, slot))
    figures = []
    for (norm, attack, unit), series in by_kind.items():
        title = f"Accuracy under {attack} at each {norm} radius"
        svg = charts.curves(title, series, x=unit, y="%", share=True, described=ends(series))
        figures.append(Figure(f"{title}; below 0 it helps the model", svg, *values(series, unit, 100)))
    return figures


def _unit(record: Mapping[str, Any]) -> tuple[int, str]:
    """Linf radii in pixel values where they are whole ones, as people write 8/255; all others as they are."""
    pixels = [255 * float(epsilon) for epsilon in record["epsilons"]]
    whole = record.get("norm") == "Linf" and all(abs(value - round(value)) < 1e-3 for value in pixels)
    return (255, "radius / 255") if whole else (1, "radius")


def named(group: Group, run: RunFiles) -> str:
    """The label of a run's curve: that of its group, with the seed where the group has several.

    Example:
        >>> named(Group((RunFiles(Path("a"), {}),), "uiat"), RunFiles(Path("a"), {}))
        'uiat'
    """
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
            sizes = [sum(row) for row in found.confusion]
            each = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
            title = f"{group.label}: {found.attack}, {found.n:,} images, {each} of a class"
            svg = charts.matrix(f"Confusion under attack, {title}", found.classes, found.confusion)
            counts = zip(found.classes, sizes, found.confusion, strict=True)
            rows = [[name, *(str(count) for count in row), str(size)] for name, size, row in counts]
            figures.append(Figure(title, svg, ["true ↓, predicted →", *found.classes, "images"], rows))
    return figures
