"""The protocol of listeners, which receive the progress of training: bars in a terminal, trackers."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Listener(Protocol):
    """Receives the progress of training: a progress bar, a tracker. Every method may be called often."""

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Receive a finished step; the terms are scalars on the device, and reading them waits for it.

        Args:
            epoch: number of the epoch, from 0.
            step: number of steps done in this epoch.
            steps: number of steps of an epoch.
            terms: means of the loss terms over the batch.
            images: number of images in the step, of all processes.
        """

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Receive the measurements of a finished epoch, validation included."""


class Listeners:
    """Several listeners as one.

    Args:
        listeners: each of them receives every step and epoch, in this order.

    Example:
        >>> Listeners().epoch({"epoch": 0})
    """

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Pass on a finished step."""
        for listener in self.listeners:
            listener.step(epoch, step, steps, terms, images)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Pass on a finished epoch."""
        for listener in self.listeners:
            listener.epoch(row)
