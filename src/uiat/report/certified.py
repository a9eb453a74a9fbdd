"""The panel of what is certified: by bounds, beside what attacks left, and by randomised smoothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from uiat.formatting import spread, threat_text
from uiat.report.groups import Group
from uiat.report.inputs import Inputs
from uiat.report.section import Cell, Column, Section, Table
from uiat.report.svg import charts

_DASH = Cell("–", -1.0)
_ABOUT = (
    "By bounds: the accuracy of the model that no attack within the threat model can go below. By smoothing: the "
    "accuracy of another model, the class that it gives most often to an image with Gaussian noise of deviation sigma, "
    "at L2 radii that are certain but for alpha; its mean radius is 0 where the class is wrong or none."
)


def certified(inputs: Inputs) -> Section:
    """Return the panel of certified accuracies, a row for each group and certification.

    Example:
        >>> certified(Inputs([])).is_empty
        True
    """
    columns = [Column("run"), Column("certified by"), Column("certified accuracy, %", number=True)]
    columns += [Column("mean radius", number=True), Column("abstains, %", number=True), Column("% at L2 radius")]
    rows = [
        [Cell(group.label, mark=charts.swatch(group.slot)), *cells]
        for group in inputs.groups
        for cells in _certifications(group)
    ]
    table = Table(columns, rows, "Certified accuracy")
    return Section(
        "Certified accuracy", anchor="certified", link="Certified", intro=_ABOUT, tables=[table] * bool(rows)
    )


def _certifications(group: Group) -> Iterator[list[Cell]]:
    """Yield the cells of each certification that all runs of a group have."""
    bounds = [record for run in group.runs if (record := (run.evaluation or {}).get("certified"))]
    if len(bounds) == len(group.runs):
        yield [Cell(f"bounds, {threat_text(bounds[0]['threat'])}"), _share(bounds, "accuracy"), _DASH, _DASH, _DASH]
    smoothed = [(run.evaluation or {}).get("smoothing") or {} for run in group.runs]
    for name in smoothed[0]:
        found = [records[name] for records in smoothed if name in records]
        if len(found) == len(smoothed):
            yield [Cell(name.removeprefix("certify-")), *_smoothing(found)]


def _smoothing(found: list[Mapping[str, Any]]) -> list[Cell]:
    means = [float(one["mean_radius"]) for one in found]
    shares = [float(one.get("abstained", 0)) / max(1, len(one.get("radii", ()))) for one in found]
    curve = [
        f"{100 * sum(one['certified'][k] for one in found) / len(found):.1f} at {radius:.4g}"
        for k, radius in enumerate(found[0]["at"])
        if all(len(one["at"]) > k and one["at"][k] == radius for one in found)
    ]
    return [
        _share(found, "accuracy"),
        Cell(spread(means, scale=1, digits=3), sum(means) / len(means)),
        Cell(spread(shares), sum(shares)),
        Cell(", ".join(curve)),
    ]


def _share(records: list[Mapping[str, Any]], name: str) -> Cell:
    values = [float(record[name]) for record in records]
    return Cell(spread(values, digits=2), sum(values) / len(values))
