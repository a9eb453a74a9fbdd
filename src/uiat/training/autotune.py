"""Levers of speed that a run leaves to the machine ("auto"): measured before the first step, and kept in its folder."""

import copy
import logging
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uiat.attacks.gradient import input_gradient
from uiat.config.schema import Run
from uiat.data import Batch
from uiat.models.modes import frozen
from uiat.speed.compile import can_compile, compile_model
from uiat.speed.throughput import convolution_rate, median_seconds
from uiat.system.distributed import current_rank
from uiat.training.pass_count import step_passes
from uiat.training.setup import seeded
from uiat.training.step import autocast

logger = logging.getLogger("uiat")
# bf16 is for machines that compute in it: those do convolutions two to eight times as fast, others more slowly.
BF16_PAYS = 1.3
# Seconds of inner problems that are worth the 10 to 40 that compilation takes, and the speed it then has to bring.
COMPILE_FROM = 600.0
COMPILE_PAYS = 1.05


def resolve_auto(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int, steps: int) -> Run:
    """The run with a value in place of each "auto", by what pays on the model's device.

    Of several processes the first one decides for all. Random generators are left as they were.

    Args:
        run: whose `compute` may say "auto".
        model: on its device, in its memory format.
        image_shape: (C, H, W).
        num_classes: K.
        steps: of the whole run.

    Example:
        >>> from uiat import models, recipes
        >>> run = recipes.get("digits-pgd-at")
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> resolve_auto(run, model, image_shape=(1, 8, 8), num_classes=10, steps=100) == run
        True
    """
    compute, device = run.compute, next(model.parameters()).device
    with seeded(run.seed, device):
        if compute.precision == "auto":
            fast = not compute.plain and bf16_pays(device)
            compute = replace(compute, precision=current_rank().gather("bf16" if fast else "fp32")[0])
        if compute.compile == "auto":
            able = not (compute.plain or compute.recompute) and can_compile(device)
            images = torch.rand(run.data.batch_size // current_rank().size, *image_shape, device=device)
            run = replace(run, compute=replace(compute, compile=False))
            pays = able and compilation_pays(run, model, images, num_classes=num_classes, steps=steps)
            compute = replace(compute, compile=current_rank().gather(pays)[0])
    return replace(run, compute=compute)


def bf16_pays(device: torch.device) -> bool:
    """Whether this machine's convolutions are faster in bf16, by a measurement of a tenth of a second.

    Example:
        >>> bf16_pays(torch.device("cpu")) in (True, False)
        True
    """
    try:
        gain = convolution_rate(device, "bf16") / convolution_rate(device, "fp32")
    except RuntimeError:  # a device without bf16
        return False
    logger.info("convolutions are %.1f times as fast in bf16 as in fp32", gain)
    return gain > BF16_PAYS


def compilation_pays(run: Run, model: nn.Module, x: Float[Tensor, "b c h w"], *, num_classes: int, steps: int) -> bool:
    """Whether compiled inner problems save more than their compilation costs, in a run of so many steps.

    Short runs are told by one pass and its price; only for long ones a compiled pass is made and timed.

    Example:
        >>> from uiat import models, recipes
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> compilation_pays(recipes.get("digits-pgd-at"), model, torch.rand(8, 1, 8, 8), num_classes=10, steps=100)
        False
    """
    device, few = x.device, x[:4]
    batch = Batch(few, torch.arange(len(few), device=device) % num_classes, torch.arange(len(few), device=device))
    counts = step_passes(run, copy.deepcopy(model), batch, num_classes=num_classes)
    inner = max(passes.input_backward for passes in counts.values())
    if not inner:
        return False

    def seconds(form: nn.Module, times: int) -> float:
        def loss(images: Tensor) -> tuple[Tensor, Tensor]:
            logits = form(images)
            return logits.float().logsumexp(dim=1), logits

        with frozen(model), autocast(device, run.compute.levers.precision):
            return median_seconds(lambda: input_gradient(loss, x), times, device)

    if inner * steps * seconds(model, 1) < COMPILE_FROM:
        return False
    gain = seconds(model, 5) / seconds(compile_model(model), 5)
    logger.info("inner problems are %.2f times as fast compiled as they are eager", gain)
    return gain > COMPILE_PAYS
