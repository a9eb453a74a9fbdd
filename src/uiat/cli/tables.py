"""Tables of the results of an evaluation."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from uiat.cli.output import table
from uiat.evaluation.result import mean_of_calls
from uiat.formatting import percent, strength_text, threat_text


def results_table(result: Mapping[str, Any]) -> Table:
    """Return a table: each attack's accuracy, 95 % interval and seconds, an ensemble's after each stage too.

    Example:
        >>> results_table({"n": 2, "accuracy": {"clean": 1.0, "worst": 0.5}, "seconds": {"clean": 0.1}}).row_count
        2
    """
    n, seconds, intervals = result["n"], result.get("seconds", {}), result.get("intervals", {})
    times, calls = result.get("stage_seconds", {}), result.get("calls", {})
    rows: list[tuple[str, ...]] = []
    for name, accuracy in result["accuracy"].items():
        for stage, after in result.get("stages", {}).get(name, {}).items():
            rows.append((f"  after {stage}", percent(after), "", f"{n:,}", _seconds(times.get(stage))))
        rows.append((name, percent(accuracy), _interval(intervals.get(name)), f"{n:,}", _seconds(seconds.get(name))))
    columns = ["attack", "accuracy", "95 % interval", "images", "seconds"]
    if calls:
        columns.append(f"mean of {calls['calls']} calls")
        rows = [(*row, mean_of_calls(calls, row[0])) for row in rows]
    return table(*columns, rows=rows, numbers=columns[1:])


def describe_classes(result: Mapping[str, Any]) -> list[str]:
    """Write a line on how unevenly the accuracy falls on the classes, for the images as they are and the worst case.

    Example:
        >>> describe_classes({"fairness": {"clean": {"worst": 0.5, "worst_class": 3, "gap": 0.4, "std": 0.2}}})
        ['by class, clean: lowest 50.00 % (class 3), 40.00 points below the highest, standard deviation 20.00']
    """
    return [
        f"by class, {name}: lowest {percent(spread['worst'])} (class {spread['worst_class']:.0f}), "
        f"{100 * spread['gap']:.2f} points below the highest, standard deviation {100 * spread['std']:.2f}"
        for name in ("clean", "worst")
        if (spread := result.get("fairness", {}).get(name))
    ]


def describe_calibration(result: Mapping[str, Any]) -> list[str]:
    """Write a line with the calibration error of the images as they are and on the examples of attacks.

    Example:
        >>> describe_calibration({"calibration": {"ece": 0.0123, "attacked": {"pgd-20": 0.25}}})
        ['calibration error (ECE): clean 1.23 %, pgd-20 25.00 %']
    """
    found = result.get("calibration", {})
    shares = {"clean": found["ece"], **found.get("attacked", {})} if "ece" in found else {}
    text = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    return [f"calibration error (ECE): {text}"] if text else []


def _interval(edges: list[float] | None) -> str:
    return "" if edges is None else f"{100 * edges[0]:.2f} - {100 * edges[1]:.2f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def describe_certified(certified: Mapping[str, Any], attacked: float, n: int) -> str:
    """Write between which bounds robust accuracy lies: what is proved, and what attacks left.

    Example:
        >>> describe_certified({"accuracy": 0.25, "by_method": {"ibp": 0.0, "crown": 0.25}}, 0.5, 100)
        '[certified, attacked]: [25.00 %, 50.00 %], 25 of 100 images open; certified by ibp 0.00 %, crown 25.00 %'
    """
    low, by_method = certified["accuracy"], certified["by_method"]
    methods = ", ".join(f"{name} {percent(share)}" for name, share in by_method.items())
    bracket = f"[{percent(low)}, {percent(attacked)}], {round((attacked - low) * n)} of {n:,} images open"
    return f"[certified, attacked]: {bracket}; certified by {methods}"


def describe_smoothing(name: str, found: Mapping[str, Any], n: int) -> list[str]:
    """Write what randomised smoothing certifies, as lines.

    Example:
        >>> found = {"at": [0.0, 0.125], "certified": [0.5, 0.25], "abstained": 1, "mean_radius": 0.2, "n": 1000}
        >>> for line in describe_smoothing("certify-smoothing-0.25", found | {"alpha": 0.001}, 4):
        ...     print(line)
        certify-smoothing-0.25: 1,000 noisy images of each, each radius certain but for 0.1 %; of the smoothed model
          certified accuracy at L2 radius: 50.00 % at 0, 25.00 % at 0.125
          mean radius 0.2000; it abstains on 1 of 4
    """
    shares = (
        f"{percent(share)} at {radius:.4g}" for radius, share in zip(found["at"], found["certified"], strict=True)
    )
    return [
        f"{name}: {found['n']:,} noisy images of each, each radius certain but for {100 * found['alpha']:g} %; of the "
        "smoothed model",
        f"  certified accuracy at L2 radius: {', '.join(shares)}",
        f"  mean radius {found['mean_radius']:.4f}; it abstains on {found['abstained']} of {n:,}",
    ]


def show_extras(extras: Mapping[str, Any], out: Console) -> None:
    """Print a table of each extra measurement.

    Example:
        >>> show_extras({}, Console())
    """
    for name in extras.get("not_measured", ()):
        out.print(f"warning: {name}: not measured, its attack needs a gradient, and the model has none", soft_wrap=True)
    for name, found in extras.get("smoothing", {}).items():
        for line in describe_smoothing(name, found, len(found["radii"])):
            out.print(line, soft_wrap=True)
    if "sweep" in extras:
        _show_sweep(extras["sweep"], out)
    if "unseen" in extras:
        accuracy = extras["unseen"]["accuracy"]
        out.print(f"\nunder each threat, {extras['unseen']['attack']}")
        rows = [(threat_text(name), percent(share)) for name, share in accuracy.items()]
        out.print(table("threat", "accuracy", rows=rows, numbers=["accuracy"]))
    if "corruptions" in extras:
        _show_corruptions(f"strengths of {extras['corruptions']['strengths']}", extras["corruptions"], out)
    if "corruption_files" in extras:
        _show_corruptions(extras["corruption_files"]["strengths"], extras["corruption_files"], out)


def _show_sweep(extras: Mapping[str, Any], out: Console) -> None:
    out.print(f"\n{extras['attack']} at each radius, {extras['norm']}; below 0 it helps the model", soft_wrap=True)
    strengths = extras["epsilons"]
    columns = {"epsilon": [f"{epsilon:.6g}" for epsilon in strengths]}
    if extras["norm"] == "Linf":  # a radius of another norm is a length over many pixels
        columns["in pixels"] = [strength_text(epsilon, pixels=True, digits=4) for epsilon in strengths]
    columns["accuracy"] = [percent(accuracy) for accuracy in extras["accuracy"]]
    columns["seconds"] = [f"{seconds:.1f}" for seconds in extras["seconds"]]
    out.print(table(*columns, rows=list(zip(*columns.values(), strict=True)), numbers=list(columns)))


def _show_corruptions(which: str, extras: Mapping[str, Any], out: Console) -> None:
    out.print(f"\ncommon corruptions, {which}", soft_wrap=True)
    severities = [str(severity) for severity in next(iter(extras["accuracy"].values()))]
    rows = [
        (kind, *(percent(share) for share in shares.values()), percent(extras["by_kind"][kind]))
        for kind, shares in extras["accuracy"].items()
    ]
    rows.append(("mean", *("" for _ in severities), percent(extras["mean"])))
    out.print(table("corruption", *severities, "mean", rows=rows, numbers=[*severities, "mean"]))
