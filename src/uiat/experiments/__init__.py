"""Experiments without a terminal: evaluations of anything, and grids of runs."""

from uiat.experiments.finish import finish_training
from uiat.experiments.grid import GridRun
from uiat.experiments.options import EvaluateOptions
from uiat.experiments.run_grid import SweepListener, sweep

__all__ = ["EvaluateOptions", "GridRun", "SweepListener", "finish_training", "sweep"]
