"""The first chart of a report: accuracy in the worst case against accuracy on the images as they are."""

from uiat.formatting import threat_text
from uiat.report.inputs import Inputs
from uiat.report.scores import score_groups
from uiat.report.section import Figure, Legend, Section
from uiat.report.svg import charts
from uiat.report.svg.scatter import Point, scatter

X, Y = "clean accuracy, %", "worst case, %"


def tradeoff(inputs: Inputs) -> Section:
    """Return the panel of clean against robust accuracy, a chart for each data set, threat model and number of images.

    Example:
        >>> tradeoff(Inputs([])).is_empty
        True
    """
    by_kind: dict[str, list[Point]] = {}
    legend: Legend = []
    for group, scores in zip(inputs.groups, score_groups(inputs.groups), strict=True):
        if "clean" in scores and "worst" in scores:
            result = group.evaluation or {}
            kind = f"{result.get('data')}, {threat_text(str(result.get('threat')))}, {result.get('n', 0):,} images"
            clean, worst = scores["clean"], scores["worst"]
            place, errors = (clean.mean / 100, worst.mean / 100), (clean.error / 100, worst.error / 100)
            point = Point(group.label, place[0], place[1], errors[0], errors[1], group.slot)
            by_kind.setdefault(kind, []).append(point)
            legend = [*legend, (charts.swatch(group.slot), group.label)]
    drawn = []
    for kind, points in by_kind.items():
        if len(points) > 1:  # one point is nothing to compare
            svg = scatter(f"Worst case against clean accuracy, {kind}", points, x=X, y=Y)
            drawn.append(Figure(kind, svg))  # the numbers are those of the table above
    return Section(
        "Clean against robust accuracy",
        anchor="tradeoff",
        link="Clean against robust",
        intro="Up and to the right is better. Bars: the standard deviation over seeds or, of a single run, the "
        "standard error of a fraction of n images.",
        legend=legend,
        figures=drawn,
    )
