"""The tables that an evaluation ends in."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from uiat.cli.output import table
from uiat.progress import percent


def results_table(result: Mapping[str, Any]) -> Table:
    """Accuracy under each attack with its 95 % interval, an ensemble's after each of its stages, and how long it took.

    Example:
        >>> results_table({"n": 2, "accuracy": {"clean": 1.0, "worst": 0.5}, "seconds": {"clean": 0.1}}).row_count
        2
    """
    n, seconds, intervals = result["n"], result["seconds"], result.get("intervals", {})
    times = result.get("stage_seconds", {})
    rows = []
    for name, share in result["accuracy"].items():
        for stage, after in result.get("stages", {}).get(name, {}).items():
            rows.append((f"  after {stage}", percent(after), "", f"{n:,}", _seconds(times.get(stage))))
        rows.append((name, percent(share), _interval(intervals.get(name)), f"{n:,}", _seconds(seconds.get(name))))
    columns = ("attack", "accuracy", "95 % interval", "images", "seconds")
    return table(*columns, rows=rows, numbers=columns[1:])


def _interval(edges: list[float] | None) -> str:
    return "" if edges is None else f"{100 * edges[0]:.2f} - {100 * edges[1]:.2f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
