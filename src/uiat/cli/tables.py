"""The tables that an evaluation ends in."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from uiat.cli.output import table
from uiat.formatting import percent, strength_text, threat_text


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


def show_extras(found: Mapping[str, Any], out: Console) -> None:
    """A table of each.

    Example:
        >>> show_extras({}, Console())
    """
    for name in found.get("not_measured", ()):
        out.print(f"warning: {name}: not measured, its attack needs a gradient, and the model has none", soft_wrap=True)
    if "sweep" in found:
        _show_sweep(found["sweep"], out)
    if "unseen" in found:
        accuracy = found["unseen"]["accuracy"]
        out.print(f"\nunder each threat, {found['unseen']['attack']}")
        rows = [(threat_text(name), percent(share)) for name, share in accuracy.items()]
        out.print(table("threat", "accuracy", rows=rows, numbers=["accuracy"]))
    if "corruptions" in found:
        _show_corruptions(found["corruptions"], out)


def _show_sweep(found: Mapping[str, Any], out: Console) -> None:
    out.print(f"\n{found['attack']} at each radius, {found['norm']}; below 0 it helps the model", soft_wrap=True)
    strengths = found["epsilons"]
    columns = {"epsilon": [f"{epsilon:.6g}" for epsilon in strengths]}
    if found["norm"] == "Linf":  # a radius of another norm is a length over many pixels
        columns["in pixels"] = [strength_text(epsilon, pixels=True, digits=4) for epsilon in strengths]
    columns["accuracy"] = [percent(share) for share in found["accuracy"]]
    columns["seconds"] = [f"{seconds:.1f}" for seconds in found["seconds"]]
    out.print(table(*columns, rows=list(zip(*columns.values(), strict=True)), numbers=list(columns)))


def _show_corruptions(found: Mapping[str, Any], out: Console) -> None:
    out.print(f"\ncommon corruptions, strengths of {found['strengths']}", soft_wrap=True)
    severities = [str(severity) for severity in next(iter(found["accuracy"].values()))]
    rows = [
        (kind, *(percent(share) for share in shares.values()), percent(found["by_kind"][kind]))
        for kind, shares in found["accuracy"].items()
    ]
    rows.append(("mean", *("" for _ in severities), percent(found["mean"])))
    out.print(table("corruption", *severities, "mean", rows=rows, numbers=[*severities, "mean"]))
