"""A model under attack with the images of this process: exact passes, and what they cost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from uiat.evaluation.engine.calls import ONE_CALL, CallRule
from uiat.evaluation.engine.misclassified import is_misclassified
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
from uiat.models.inspect import Target
from uiat.models.modes import BatchNormMode, frozen
from uiat.shapes import Bool, Float, Int
from uiat.speed.fast_copy import CountingModel


@contextmanager
def exact_inference(model: nn.Module, *, batchnorm: BatchNormMode = "eval") -> Iterator[None]:
    """The model is frozen, and convolutions are exact: full precision, and the same algorithm each time.

    On a GPU torch's convolutions multiply in TF32 unless told not to, and may take whichever algorithm was the faster.

    Example:
        >>> with exact_inference(nn.Linear(2, 2)):
        ...     torch.backends.cudnn.allow_tf32
        False
    """
    cudnn = torch.backends.cudnn
    exact = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False)
    with exact, frozen(model, batchnorm=batchnorm):
        yield


def confidence_of(logits: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    """Return the probability of the predicted class, in double precision, on the CPU; 0 where it is NaN.

    Example:
        >>> confidence_of(torch.tensor([[0.0, 0.0], [0.0, float("nan")]]))
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return logits.double().softmax(dim=1).amax(dim=1).cpu().nan_to_num()


@runtime_checkable
class Guide(Protocol):
    """A model that counts the images of its forward and its backward passes."""

    forward: int
    backward: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (b, k) of images."""


@dataclass
class AttackTarget:
    """A model under attack, with the images of this process.

    Args:
        target: the model.
        x: images.
        y: labels.
        index: positions of the images among all, which decide their random numbers.
        batch_size: images at a time.
        seed: seed of the random numbers.
        guide: what gradients and queries of attacks go through; by default the model itself.
        rule: how many wrong calls break an image.

    Example:
        >>> x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        >>> model = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> target = AttackTarget(model, x, y, torch.arange(2), AdaptiveBatchSize(2))
        >>> logits, wrong = target.classify(x, torch.arange(2))
        >>> target.pop_costs()["forward"]
        2
    """

    target: Target
    x: Tensor
    y: Tensor
    index: Int[Tensor, "n"]
    batch_size: AdaptiveBatchSize
    seed: int = 0
    guide: Guide | None = None
    rule: CallRule = ONE_CALL
    _before: tuple[float, int, int] = field(default=(0.0, 0, 0), init=False)

    def __post_init__(self) -> None:
        self.module, self.device, self.classes = self.target.model, self.target.device, self.target.classes
        self.model = CountingModel(self.module)
        self.guided: Guide = self.model if self.guide is None else self.guide
        self._counts: dict[str, float] = {}
        self.pop_costs()

    def add_count(self, kind: str, count: int) -> None:
        """Count images to which something happened, to be reported with the costs of the stage."""
        self._counts[kind] = self._counts.get(kind, 0) + count

    def pop_costs(self) -> dict[str, float]:
        """Return what a stage has cost since the last call.

        The seconds, the images forward and backward through model and guide, and what `add_count` has counted.
        """
        guides: tuple[Guide, ...] = (self.model, self.guided)
        distinct = {id(guide): guide for guide in guides}.values()
        now = (time.perf_counter(), sum(m.forward for m in distinct), sum(m.backward for m in distinct))
        seconds, forward, backward = (a - b for a, b in zip(now, self._before, strict=True))
        self._before, counts, self._counts = now, self._counts, {}
        return {"seconds": seconds, "forward": forward, "backward": backward, **counts}

    def classify(self, images: Tensor, rows: Int[Tensor, "m"]) -> tuple[Tensor, Bool[Tensor, "m"]]:
        """Return the model's logits for images made from some rows of `x`, and a mask of the wrong ones, on the CPU."""
        with torch.no_grad():
            logits = self.model(images.to(self.device))
        return logits, is_misclassified(logits, self.y[rows].to(self.device)).cpu()

    def count_wrong(self, images: Tensor, rows: Int[Tensor, "m"]) -> tuple[Int[Tensor, "m"], Float[Tensor, "m"]]:
        """Return the number of the rule's calls that misclassify each of some images, a batch, on the CPU.

        Also the probability of the class that the last of them predicts.
        """
        count, confidence = torch.zeros(len(rows), dtype=torch.int64), torch.zeros(len(rows), dtype=torch.float64)
        for _ in range(self.rule.calls):
            logits, wrong = self.classify(images, rows)
            count, confidence = count + wrong, confidence_of(logits)
        return count, confidence

    def ask(self, images: Tensor, rows: Int[Tensor, "m"]) -> Bool[Tensor, "calls m"]:
        """Return which of the rule's calls misclassify which of some images, however many, on the CPU."""
        wrong = torch.zeros(self.rule.calls, len(rows), dtype=torch.bool)

        def ask(part: Tensor) -> None:
            for call in wrong:
                call[part] = self.classify(images[part], rows[part])[1]

        with exact_inference(self.module):
            for _ in self.batch_size.batches(torch.arange(len(rows)), ask):
                pass
        return wrong
