"""Layers whose output can be kept: what of their input they read, found out by giving them a NaN."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor, nn

# Row and column of the first pixel of a window in each image.
Corner = tuple[Int[Tensor, "b"], Int[Tensor, "b"]]
Hook = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class CachedLayer:
    """A layer whose output is kept. Along a side, output o reads inputs `stride * o - before` to `stride * o + after`.

    Inputs are pixels of the map of the cut before, or of the image.

    Example:
        >>> import torch
        >>> cut = CachedLayer(nn.Identity(), stride=2, before=1, after=1, size=16)
        >>> [int(v) for v in cut.changed(torch.tensor(10), 4)], cut.crop(4)
        ([5, 3], 8)
    """

    layer: nn.Module
    stride: int
    before: int
    after: int
    size: int

    def count(self, pixels: int) -> int:
        """How many outputs along a side read any of so many inputs, wherever these are."""
        return min((pixels - 1 + self.before + self.after) // self.stride + 1, self.size)

    def changed(self, start: Int[Tensor, "..."], pixels: int) -> tuple[Int[Tensor, "..."], int]:
        """The first of the outputs that read any of `pixels` inputs from `start` on, and how many they are."""
        count = self.count(pixels)
        return (-((self.after - start) // self.stride)).clamp(0, self.size - count), count

    def crop(self, pixels: int) -> int:
        """Inputs along a side from which those outputs can be computed: what they read, from a whole stride on."""
        read = self.before + self.stride * (self.count(pixels) - 1) + self.after + 1
        return -(-(read + self.stride - 1) // self.stride) * self.stride

    def begin(self, first: Int[Tensor, "..."], crop: int) -> Int[Tensor, "..."]:
        """Where the crop begins for outputs from `first` on. At an edge of the map it has the map's own padding."""
        start = (self.stride * first - self.before) // self.stride * self.stride
        return start.clamp(0, self.stride * self.size - crop)


@contextmanager
def layer_hooks(cuts: Sequence[CachedLayer], hooks: Sequence[Hook]) -> Iterator[None]:
    """While the outputs of the first cuts go through these."""
    pairs = list(zip(cuts, hooks, strict=False))
    handles = [c.layer.register_forward_hook(lambda _, __, out, hook=hook: hook(out)) for c, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_candidates(model: nn.Module, example: Tensor) -> list[nn.Module]:
    """Parts of chains of layers that put out square maps, once a pass, in the order in which they end."""
    chained = {child for m in model.modules() if isinstance(m, nn.Sequential) for child in m.children()}
    calls = Counter[nn.Module]()
    ended: list[nn.Module] = []

    def note(module: nn.Module, _: object, out: object) -> None:
        calls[module] += 1
        if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] == out.shape[3]:
            ended.append(module)

    handles = [module.register_forward_hook(note) for module in chained]
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    return [module for module in ended if calls[module] == 1]


def measure_receptive_field(
    model: nn.Module, cuts: list[CachedLayer], layer: nn.Module, example: Tensor
) -> CachedLayer | None:
    """How far a layer sees, by where a NaN in the map before it comes out; None where that is at an edge or nowhere."""
    size, seen = cuts[-1].size if cuts else example.shape[3], False
    middle, stride, before, after = size // 2, 1, 0, 0
    at = middle
    while at < middle + stride:  # once for each place that an input can have in a stride
        out = _poisoned(model, cuts, layer, example, at)
        stride = size // out.shape[2]
        if out.shape[2] * stride != size:
            return None
        for side in (0, 1):
            reached = out.isnan().any(dim=0).any(dim=0).any(dim=side).nonzero().flatten().tolist()
            if reached and (reached[0] == 0 or reached[-1] == out.shape[2] - 1):
                return None
            seen = seen or bool(reached)
            if reached:
                before, after = max(before, stride * reached[-1] - at), max(after, at - stride * reached[0])
        at += 1
    return CachedLayer(layer, stride, before, after, out.shape[2]) if seen else None


def _poisoned(model: nn.Module, cuts: list[CachedLayer], layer: nn.Module, example: Tensor, at: int) -> Tensor:
    """A layer's output where one pixel of the map of the last cut (or of the image) is NaN in all channels."""
    seen: list[Tensor] = []

    def poison(image: Tensor) -> Tensor:
        image = image.clone()
        image[:, :, at, at] = float("nan")
        return image

    handle = layer.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    try:
        with layer_hooks(cuts[-1:], [poison]):
            model(example if cuts else poison(example))
    finally:
        handle.remove()
    return seen[0]
