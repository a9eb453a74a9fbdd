"""Resolve the settings that a run leaves to the machine ("auto"), by measuring, before its first step."""

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from uiat.attacks.gradient import input_gradient
from uiat.config.schema import Run
from uiat.data import Batch
from uiat.models.modes import frozen
from uiat.objectives.abilities import crafts_in_eval_mode
from uiat.shapes import Float
from uiat.speed.compile import can_compile
from uiat.speed.inner_model import InnerModel
from uiat.speed.throughput import convolution_rate, median_seconds
from uiat.system.announcements import announced
from uiat.system.distributed import current_rank
from uiat.training.pass_count import step_passes
from uiat.training.setup import seeded_torch
from uiat.training.step_options import autocast

logger = logging.getLogger("uiat")
# Least gain in speed for bf16. Machines that compute in it do convolutions 2 to 8 times as fast, others more slowly.
MIN_BF16_GAIN = 1.3
# Compilation takes 10 to 40 seconds: it is tried from so many seconds of inner problems on, and kept from this gain on.
MIN_INNER_SECONDS = 600.0
MIN_COMPILE_GAIN = 1.05


def resolve_auto(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int, steps: int) -> Run:
    """Return the run with a value in place of each "auto", by what is faster on the model's device.

    The first of several processes decides for all. Random generators are left as they were.

    Args:
        run: a run whose `compute` may say "auto".
        model: the model of the run, on its device and in its memory format.
        image_shape: (C, H, W).
        num_classes: K.
        steps: number of steps in the whole run.

    Example:
        >>> from uiat import models, recipes
        >>> run = recipes.get("digits-pgd-at")
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> resolve_auto(run, model, image_shape=(1, 8, 8), num_classes=10, steps=100) == run
        True
    """
    compute, device = run.compute, next(model.parameters()).device
    if "auto" not in (compute.precision, compute.compile):
        return run
    auto = " and ".join(f"compute.{name}" for name in ("precision", "compile") if getattr(compute, name) == "auto")
    with seeded_torch(run.seed, device), announced(f"measuring what is faster on this machine, for {auto}=auto"):
        if compute.precision == "auto":
            bf16 = not compute.plain and _try_out("precision", lambda: is_bf16_faster(device))
            compute = replace(compute, precision=current_rank().gather("bf16" if bf16 else "fp32")[0])
        if compute.compile == "auto":
            possible = not (compute.plain or compute.recompute) and can_compile(device)
            images = torch.rand(run.data.batch_size // current_rank().size, *image_shape, device=device)
            run = replace(run, compute=replace(compute, compile=False))
            measure = partial(is_compiling_faster, run, model, images, num_classes=num_classes, steps=steps)
            faster = possible and _try_out("compile", measure)
            compute = replace(compute, compile=current_rank().gather(faster)[0])
    return replace(run, compute=compute)


def _try_out(name: str, is_faster: Callable[[], bool]) -> bool:
    """Measure; where that fails, the plain form will do, which the run is able to compute in any case."""
    try:
        return is_faster()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        logger.warning(
            "compute.%s keeps to the plain form: measuring it ended with %s: %s", name, type(error).__name__, reason
        )
        return False


def is_bf16_faster(device: torch.device) -> bool:
    """True if this machine's convolutions are faster in bf16, by a measurement of a tenth of a second.

    Example:
        >>> is_bf16_faster(torch.device("cpu")) in (True, False)
        True
    """
    try:
        gain = convolution_rate(device, "bf16") / convolution_rate(device, "fp32")
    except RuntimeError:  # a device without bf16
        return False
    logger.info("convolutions are %.1f times as fast in bf16 as in fp32", gain)
    return gain > MIN_BF16_GAIN


def is_compiling_faster(
    run: Run, model: nn.Module, x: Float[Tensor, "b c h w"], *, num_classes: int, steps: int
) -> bool:
    """True if compiled inner problems save more time in the run than their compilation takes.

    For short runs one eager pass and its price decide; only for long ones a compiled pass is made and timed.

    Args:
        run: every setting.
        model: the model of the run, on its device and in its memory format.
        x: images (B, C, H, W) of a batch of the run's size.
        num_classes: K.
        steps: number of steps in the whole run.

    Example:
        >>> from uiat import models, recipes
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> is_compiling_faster(recipes.get("digits-pgd-at"), model, torch.rand(8, 1, 8, 8), num_classes=10, steps=100)
        False
    """
    device, few = x.device, x[:4]
    fold = run.compute.resolved.fold and crafts_in_eval_mode(run.objective)
    batch = Batch(few, torch.arange(len(few), device=device) % num_classes, torch.arange(len(few), device=device))
    counts = step_passes(run, copy.deepcopy(model), batch, num_classes=num_classes)
    inner = max(passes.input_backward for passes in counts.values())
    if not inner:
        return False

    def seconds(compile: bool, times: int) -> float:
        half = run.compute.resolved.precision == "bf16"
        form = InnerModel(model, tuple(x.shape[1:]), fold=fold, half=half, compile=compile)()

        def loss(images: Tensor) -> tuple[Tensor, Tensor]:
            logits = form(images)
            return logits.float().logsumexp(dim=1), logits

        with frozen(form), autocast(device, run.compute.resolved.precision):
            return median_seconds(lambda: input_gradient(loss, x), times, device)

    if inner * steps * seconds(False, 1) < MIN_INNER_SECONDS:
        return False
    gain = seconds(False, 5) / seconds(True, 5)
    logger.info("inner problems are %.2f times as fast compiled as they are eager", gain)
    return gain > MIN_COMPILE_GAIN
