"""`uiat cost`: what training a recipe costs on this machine."""

import dataclasses
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from uiat import recipes
from uiat.cli.output import AsJson, console, json_printed, table
from uiat.cli.settings import split_recipe
from uiat.config import yaml_io
from uiat.training.cost import CostReport, estimate_cost

Steps = Annotated[int, typer.Option(metavar="N", min=1, help="Steps to measure, after one that warms up.")]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads on a CPU. [default: torch's]")]


def cost(context: typer.Context, steps: Steps = 3, threads: Threads = None, json: AsJson = False) -> None:
    """Show what a training step costs on this machine.

    Example: uiat cost cifar10-small-uiat compute.compile=true --steps 5

    Passes, arithmetic, the machine's floor, seconds. F is the price of a forward pass of one image; a backward pass to
    the image costs one more, one to the weights two. The floor is what the step's arithmetic takes at the machine's
    rate, measured in a matrix product and a convolution, in each precision; the last column is the floor of the run's
    own precision over the seconds. Trains on noise and keeps nothing; no data is read, except for image folders.
    Extra images (data.extra) change neither the passes nor the number of steps.
    """
    recipe, assignments = split_recipe(context)
    if threads is not None:
        torch.set_num_threads(threads)
    run = yaml_io.override(recipes.get(recipe), assignments)
    with json_printed(json) as give:
        report = estimate_cost(run, steps=steps)
        _show(report, run.name, console(quiet=json))
        give(_to_json(report, run.name))


def _to_json(report: CostReport, name: str) -> dict[str, Any]:
    costs = [
        {
            "first_epoch": cost.epochs[1] + 1,
            "epochs": cost.epochs[0],
            "passes": dataclasses.asdict(cost.passes),
            "units": cost.passes.units,
            "flops": cost.flops,
            "seconds": cost.seconds,
            "floor_seconds": {precision: report.roofline_seconds(cost, precision) for precision in report.rates},
        }
        for cost in report.costs
    ]
    facts = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    return {"kind": "cost", "name": name, **facts, "costs": costs, "seconds": report.seconds}


def _show(report: CostReport, name: str, out: Console) -> None:
    rows: list[list[Any]] = []
    for item in report.costs:
        count, first = item.epochs
        which = f"{first + 1}" if count == 1 else f"{first + 1}-{first + count}"
        p = item.passes
        rows.append(
            [
                *(which, f"{p.forward:g}+{p.input_backward:g}+{p.training_backward:g}", f"{p.units:g} F"),
                *(f"{item.flops / 1e9:.4g}", f"{1000 * item.seconds:.1f}"),
                *(f"{1000 * report.roofline_seconds(item, precision):.1f}" for precision in report.rates),
                f"{report.roofline_seconds(item) / item.seconds:.0%}",
            ]
        )
    floors = (f"{precision} floor" for precision in report.rates)
    columns = ("epochs", "passes", "in all", "GFLOP", "ms", *floors, "of it")
    out.print(f"{name}: a step of {report.batch_size} images on {report.device}", soft_wrap=True)
    out.print(
        "passes of an image: forward + backward to images alone + backward to weights; floors in ms", soft_wrap=True
    )
    out.print(table(*columns, rows=rows, numbers=columns[1:]))
    rates = ", ".join(
        f"{precision} {kind} {rate / 1e9:.4g}"
        for precision, kinds in report.rates.items()
        for kind, rate in kinds.items()
    )
    out.print(f"\nforward: {report.forward_flops / 1e6:.4g} MFLOP an image; machine, GFLOP/s: {rates}", soft_wrap=True)
    held = f"most memory held in steps: {report.peak_bytes / 2**20:.0f} MiB"
    out.print(f"{held}{', by the whole process' if 'CPU' in report.device else ''}; {report.precision}", soft_wrap=True)
    _show_beside_passes(report, out)
    epoch = report.seconds / sum(item.epochs[0] for item in report.costs)
    out.print(
        f"an epoch of {report.steps} steps: {epoch:.0f} s; the run without validation: {report.seconds / 60:.1f} min"
    )


def _show_beside_passes(report: CostReport, out: Console) -> None:
    """Say what a run keeps, and what it does beside the passes of its steps."""
    if report.kept:
        kept = (f"{t.name} {t.shape} {t.dtype} {t.bytes / 2**20:.3g} MiB" for t in report.kept)
        out.print(f"kept between steps: {', '.join(kept)}", soft_wrap=True)
    if report.universal_seconds is not None:
        out.print(
            f"of a step, moving z takes {1000 * report.universal_seconds:.2g} ms beside its passes", soft_wrap=True
        )
    if report.to_label:
        out.print(f"first, a teacher labels {report.to_label:,} extra images: one forward pass each", soft_wrap=True)
