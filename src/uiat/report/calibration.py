"""The panel of calibration: how far confidence and accuracy lie apart, as the images are and under attack."""

from uiat.formatting import spread
from uiat.report.groups import Group
from uiat.report.inputs import Inputs
from uiat.report.section import Cell, Column, Section, Table
from uiat.report.svg import charts

_ABOUT = (
    "The expected calibration error: confidence less accuracy, over 15 bins of confidence. Under attack, of the last "
    "example of each image, whether it breaks the image or not; a misclassified image stays as it is."
)


def calibration(inputs: Inputs) -> Section:
    """Return the panel of calibration errors, a column for the images as they are and for each attack.

    Example:
        >>> calibration(Inputs([])).is_empty
        True
    """
    errors = [_errors(group) for group in inputs.groups]
    names = list(dict.fromkeys(name for found in errors for name in found))
    rows = []
    for group, found in zip(inputs.groups, errors, strict=True):
        if found:
            rows.append(
                [Cell(group.label, mark=charts.swatch(group.slot)), *(_cell(found.get(name, [])) for name in names)]
            )
    table = Table([Column("run"), *(Column(name, number=True) for name in names)], rows, "Calibration error, %")
    tables = [table] if rows else []
    return Section("Calibration error, %", anchor="calibration", link="Calibration", intro=_ABOUT, tables=tables)


def _errors(group: Group) -> dict[str, list[float]]:
    """Return the errors of all runs of a group, by attack, "clean" first."""
    found: dict[str, list[float]] = {}
    for run in group.runs:
        record = (run.evaluation or {}).get("calibration") or {}
        errors = {"clean": record["ece"], **record.get("attacked", {})} if "ece" in record else {}
        for name, value in errors.items():
            found.setdefault(name, []).append(float(value))
    return found


def _cell(values: list[float]) -> Cell:
    return Cell(spread(values, digits=2), sum(values) / len(values)) if values else Cell("–", -1.0)
