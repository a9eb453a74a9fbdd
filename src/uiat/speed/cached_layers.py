"""Layers whose output can be cached: receptive fields, measured by propagating a NaN."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from uiat.shapes import Int

# Row and column of the first pixel of a window in each image.
Corner = tuple[Int[Tensor, "b"], Int[Tensor, "b"]]
Hook = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class CachedLayer:
    """A layer whose output is cached, with its receptive field.

    Along a side, output o reads inputs `stride * o - before` to `stride * o + after`. Inputs are outputs of the cached
    layer before, or pixels of the image. Rows and columns are alike, so that all methods work along one side.

    Args:
        layer: the module.
        stride: inputs from one output's field to the next.
        before: inputs that an output reads before its place.
        after: inputs that an output reads after its place.
        size: outputs along a side.

    Example:
        >>> import torch
        >>> layer = CachedLayer(nn.Identity(), stride=2, before=1, after=1, size=16)
        >>> [int(v) for v in layer.changed(torch.tensor(10), 4)], layer.crop(4)
        ([5, 3], 8)
    """

    layer: nn.Module
    stride: int
    before: int
    after: int
    size: int

    def count(self, pixels: int) -> int:
        """Count the outputs along a side that may read any of `pixels` neighbouring inputs."""
        # Output o reads one of the inputs s .. s + pixels - 1 if s - after <= stride * o <= s + pixels - 1 + before, an
        # interval of pixels + before + after whole numbers; at most this many multiples of the stride lie in it.
        return min((pixels - 1 + self.before + self.after) // self.stride + 1, self.size)

    def changed(self, start: Int[Tensor, "..."], pixels: int) -> tuple[Int[Tensor, "..."], int]:
        """Return the first output that reads any of `pixels` inputs from `start` on, and how many outputs do."""
        count = self.count(pixels)
        # -(-a // b) is a / b rounded up: the first multiple of the stride that is not before start - after. Clamped, so
        # that all images have the same number of outputs, also at an edge.
        return (-((self.after - start) // self.stride)).clamp(0, self.size - count), count

    def crop(self, pixels: int) -> int:
        """Count the inputs along a side of a crop from which those outputs can be computed, in whole strides."""
        # From the first input that the first output reads to the last that the last one reads. The crop begins at a
        # whole stride at or before that, up to stride - 1 inputs earlier, and is rounded up to whole strides.
        read = self.before + self.stride * (self.count(pixels) - 1) + self.after + 1
        return -(-(read + self.stride - 1) // self.stride) * self.stride

    def begin(self, first: Int[Tensor, "..."], crop: int) -> Int[Tensor, "..."]:
        """Return the first input of the crop for outputs from `first` on; at an edge it has the map's own padding."""
        start = (self.stride * first - self.before) // self.stride * self.stride
        return start.clamp(0, self.stride * self.size - crop)


@contextmanager
def layer_hooks(layers: Sequence[CachedLayer], hooks: Sequence[Hook]) -> Iterator[None]:
    """Pass the outputs of the first layers through these hooks, one each, inside."""
    pairs = list(zip(layers, hooks, strict=False))
    handles = [one.layer.register_forward_hook(lambda _, __, out, hook=hook: hook(out)) for one, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_candidates(model: nn.Module, example: Tensor) -> list[nn.Module]:
    """Find the modules in an nn.Sequential that put out square maps, once a pass, in the order in which they end."""
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
    model: nn.Module, layers: list[CachedLayer], module: nn.Module, example: Tensor
) -> CachedLayer | None:
    """Measure how far a module sees, by where a NaN in the map before it comes out.

    Args:
        model: the model.
        layers: cached layers before the module; the NaN is put into the map of the last one, or into the image.
        module: module to measure.
        example: images.

    Returns:
        The module with its receptive field, or None if a NaN reaches an edge of its output or nothing at all.
    """
    size, seen = layers[-1].size if layers else example.shape[3], False
    middle, stride, before, after = size // 2, 1, 0, 0
    at = middle
    # A NaN spreads through every sum that it is part of, so the outputs that are NaN are those that read input `at`.
    # Which these are repeats with the stride: one input for each place within a stride tells all.
    while at < middle + stride:
        out = _outputs_of_nan(model, layers, module, example, at)
        stride = size // out.shape[2]
        if out.shape[2] * stride != size:
            return None
        for side in (0, 1):
            reached = out.isnan().any(dim=0).any(dim=0).any(dim=side).nonzero().flatten().tolist()
            # At an edge, it would have gone further: the field is wider than can be seen from the middle.
            if reached and (reached[0] == 0 or reached[-1] == out.shape[2] - 1):
                return None
            seen = seen or bool(reached)
            # stride * o - before <= at <= stride * o + after has to hold for each output o that was reached.
            if reached:
                before, after = max(before, stride * reached[-1] - at), max(after, at - stride * reached[0])
        at += 1
    return CachedLayer(module, stride, before, after, out.shape[2]) if seen else None


def _outputs_of_nan(model: nn.Module, layers: list[CachedLayer], module: nn.Module, example: Tensor, at: int) -> Tensor:
    """Compute a module's output where pixel (at, at) of the last cached map (or of the image) is NaN."""
    outputs: list[Tensor] = []

    def poison(image: Tensor) -> Tensor:
        image = image.clone()
        image[:, :, at, at] = float("nan")
        return image

    handle = module.register_forward_hook(lambda _, __, out: outputs.append(out.clone()))
    try:
        with layer_hooks(layers[-1:], [poison]):
            model(example if layers else poison(example))
    finally:
        handle.remove()
    return outputs[0]
