"""Settle the arithmetic of the runs of a sweep once, and tell runs apart that were computed in different arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from uiat.config.schema import Run
from uiat.experiments.grid import GridRun
from uiat.runs.reader import CONFIG_FILE
from uiat.runs.settings import read_evaluated


def describe_arithmetic(run: Run) -> str:
    """Return the arithmetic of a run's steps in words.

    Example:
        >>> from uiat import Compute
        >>> describe_arithmetic(Run(compute=Compute(precision="bf16", compile=True)))
        'bf16, compiled'
    """
    resolved = run.compute.resolved
    return resolved.precision + (", compiled" if resolved.compile else "")


def find_mixture(runs: Mapping[str, str]) -> str:
    """Return a sentence why runs are not averaged; "" where all were computed in one arithmetic.

    Args:
        runs: the arithmetic of each run, by its name.

    Example:
        >>> find_mixture({"seed=0": "bf16", "seed=1": "fp32"})
        'not averaged, since their arithmetic differs: bf16 (seed=0), fp32 (seed=1); train them again in one of them'
        >>> find_mixture({"seed=0": "fp32", "seed=1": "fp32"})
        ''
    """
    names: dict[str, list[str]] = {}
    for name, arithmetic in runs.items():
        names.setdefault(arithmetic, []).append(name)
    if len(names) < 2:
        return ""
    listed = ", ".join(f"{arithmetic} ({', '.join(members)})" for arithmetic, members in names.items())
    return f"not averaged, since their arithmetic differs: {listed}; train them again in one of them"


def is_open(run: Run) -> bool:
    """True for a run whose arithmetic is measured as it begins.

    Example:
        >>> is_open(Run())
        False
    """
    return "auto" in (run.compute.precision, run.compute.compile)


def settle_arithmetic(run: GridRun, runs: Sequence[GridRun]) -> Run:
    """Return the settings of a run with each "auto" of its arithmetic as an earlier run of the sweep has it.

    "auto" is measured when a run begins, and another measurement may come out otherwise. So the first run that begins
    decides: about the precision for all runs of the sweep, about compilation for those of its own setting, since runs
    of other lengths and models gain otherwise by it. What it came to lies in its config.yaml, so that a sweep that is
    resumed takes the same.

    Args:
        run: the run that is about to begin; one that has a folder stays as it is.
        runs: all runs of the sweep.

    Example:
        >>> from pathlib import Path
        >>> settle_arithmetic(GridRun({}, Run(), Path("runs/a")), []).compute.precision
        'fp32'
    """
    compute = run.run.compute
    if not is_open(run.run) or (run.folder / CONFIG_FILE).is_file():
        return run.run
    for other in runs:
        asked = other.run.compute
        same_machine = (asked.device, asked.plain) == (compute.device, compute.plain)
        if other is run or not same_machine or not (other.folder / CONFIG_FILE).is_file():
            continue
        found = read_evaluated(other.folder)[0].compute
        if compute.precision == asked.precision == "auto":
            compute = replace(compute, precision=found.precision)
        same_setting = (other.settings, other.row) == (run.settings, run.row)
        if compute.compile == asked.compile == "auto" and same_setting:
            compute = replace(compute, compile=found.compile)
    return replace(run.run, compute=compute)
