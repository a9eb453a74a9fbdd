"""The settings of the device and the arithmetic of a run."""

from dataclasses import dataclass
from typing import Literal

from uiat.checks import Amount, Count, checked_fields
from uiat.errors import UserError, nearest

TRACKER_NAMES = ("tensorboard", "wandb", "mlflow", "trackio")


@checked_fields
@dataclass(frozen=True, kw_only=True)
class ResolvedCompute:
    """Settings of speed with a value in place of each "auto"; see `Compute`.

    Args:
        precision: of forward and backward passes.
        channels_last: memory format.
        fold: make a copy of the network for the inner problems.
        compile: the inner problems' passes; on a GPU the training passes too.
        cuda_graphs: record the step and replay it, on a GPU.
    """

    precision: Literal["fp32", "bf16"]
    channels_last: bool
    fold: bool
    compile: bool
    cuda_graphs: bool


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Compute:
    """The device and the arithmetic of a run.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        precision: "fp32"; "bf16" autocast with weights in fp32; "auto": bf16 where convolutions are faster in it.
        channels_last: memory format of images and weights; faster for most convolutions.
        fold: pass the inner problems through a copy of the network that each step prepares for them: BatchNorm folded
            into convolutions, weights cast once (`uiat.speed.inner_model`). Gradients are the same to rounding.
        compile: compile the model for the inner problems, in runs of more than a few minutes; needs a C++ compiler.
            Weights then differ in the last digits. "auto": where the run is long enough and a compiled pass is faster
            on this machine; the folder of a run says what "auto" came to.
        cuda_graphs: on a GPU, record a step once an epoch and replay it from then on (see `uiat.speed.cuda_graphs`).
        recompute: activation checkpointing: keep the outputs of blocks alone, and compute the rest again for the
            backward pass. Less memory, a third more time; not together with compile.
        sync_batchnorm: with several processes on GPUs, take BatchNorm statistics of the whole batch.
        plain: switch every setting of speed off, for comparison: fp32, channels first, nothing compiled or recorded,
            the optimiser unfused, kernels of cuDNN guessed instead of tried.
        checkpoint_minutes: number of minutes between checkpoints inside an epoch; each epoch ends with one anyway.
        checkpoint_steps: number of steps between checkpoints inside an epoch; by default only minutes count.
        trackers: what measurements and pictures are also sent to: tensorboard, wandb, mlflow, trackio. None of them
            needs a network, asks anything or stops a run.

    Example:
        >>> Compute().precision
        'fp32'
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    channels_last: bool = True
    fold: bool = True
    compile: bool | Literal["auto"] = False
    cuda_graphs: bool = True
    recompute: bool = False
    sync_batchnorm: bool = False
    plain: bool = False
    checkpoint_minutes: Amount = 5.0
    checkpoint_steps: Count | None = None
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.trackers:
            if name not in TRACKER_NAMES:
                raise nearest("tracker", name, TRACKER_NAMES)
        if self.compile is True and self.recompute:
            raise UserError("compile and recompute do not go together: set one of them to false")

    @property
    def resolved(self) -> ResolvedCompute:
        """The settings that steps are computed with: `plain` overrides all, and an "auto" not yet resolved is off.

        Example:
            >>> Compute(plain=True, precision="bf16").resolved.precision
            'fp32'
        """
        if self.plain:
            return ResolvedCompute(precision="fp32", channels_last=False, fold=False, compile=False, cuda_graphs=False)
        precision: Literal["fp32", "bf16"] = "fp32" if self.precision == "auto" else self.precision
        more = {"channels_last": self.channels_last, "fold": self.fold, "cuda_graphs": self.cuda_graphs}
        return ResolvedCompute(precision=precision, compile=self.compile is True, **more)
