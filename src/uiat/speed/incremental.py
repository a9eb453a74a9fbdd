"""Logits of images that changed in a small window, computed only as far as the window reaches.

A random search redraws a few pixels a query, and the first layers of a convolutional network answer almost everywhere
as they did before. So the outputs of a few layers ("maps") are cached for each image. A pass on a changed image takes a
crop around the window as far as the first cached layer, writes the outputs that can have changed into its map,
continues with a crop of that map, and so on for as long as crops are small. (Nakandala, Kumar & Papakonstantinou 2019
did so for occlusion maps.) Layers that can be cached are found by trying them, with logits that have to agree.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uiat.shapes import Bool, Float, Int
from uiat.speed.cached_layers import CachedLayer, Corner, Hook, find_candidates, layer_hooks, measure_receptive_field

logger = logging.getLogger("uiat")

# Logits of two forms of a model count as equal if they differ by at most this fraction of the largest logit.
TOLERANCE = 1e-4
# A crop of more than this fraction of a map does not repay the copying around it.
LARGEST_CROP = 0.5
# Nor do fewer operations saved in a batch, for each cached layer: small images, or few of them left.
LEAST_SAVED = 35e6


@dataclass(frozen=True)
class Change:
    """A change that a pass has written into the maps of one layer, so that it can be undone image by image.

    Args:
        flat: all pixels of all images' maps, a view of them.
        rows: positions of the changed pixels among those, image by image.
        old: values of those pixels before the change.
        pixels: number of changed pixels in each image.
    """

    flat: Float[Tensor, "m c"]
    rows: Int[Tensor, "n"]
    old: Float[Tensor, "n c"]
    pixels: int

    def undo(self, mask: Bool[Tensor, "b"]) -> None:
        """Restore the old values for the images of the mask."""
        rows = mask.repeat_interleave(self.pixels)
        self.flat.index_copy_(0, self.rows[rows], self.old[rows])


def have_equal_logits(one: Tensor, other: Tensor) -> bool:
    """True if the logits of two forms of a model agree; False also where either is not finite.

    Example:
        >>> (
        ...     have_equal_logits(torch.tensor([1.0]), torch.tensor([1.00001])),
        ...     have_equal_logits(torch.tensor([1.0]), torch.tensor([1.001])),
        ... )
        (True, False)
    """
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())


class Incremental:
    """A model that computes logits of images that changed in a window, from maps that it has computed of them before.

    Args:
        model: a frozen model in eval mode; hooks come and go on its layers.
        example: a few images (B, C, H, W) like those that it will be called on.
        on_pass: called with the number of images of each pass.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.AvgPool2d(32), nn.Flatten())
        >>> incremental, x = Incremental(model, torch.rand(2, 1, 32, 32)), torch.rand(2, 1, 32, 32)
        >>> corner = (torch.tensor([0, 7]), torch.tensor([29, 2]))
        >>> maps = incremental.compute_maps(x, len(incremental.layers))
        >>> x[0, :, 0:3, 29:32], x[1, :, 7:10, 2:5] = 0.0, 1.0
        >>> torch.allclose(incremental(x, corner, 3, maps)[0], model(x), atol=1e-6)
        True
    """

    def __init__(self, model: nn.Module, example: Tensor, on_pass: Callable[[int], None] | None = None) -> None:
        self.model = model
        self.on_pass: Callable[[int], None] = lambda count: None  # passes that try layers out are not counted
        self.layers: list[CachedLayer] = []
        self.example = example[:2].clone()
        self.saved: dict[tuple[int, int], float] = {}
        if example.ndim == 4 and example.shape[2] == example.shape[3]:
            with torch.no_grad():
                _find_layers(self, self.example)
        if on_pass is not None:
            self.on_pass = on_pass
        logger.debug("%d layers whose outputs can be cached", len(self.layers))

    def count_usable(self, pixels: int, images: int) -> int:
        """Count the cached layers that are worth using for windows of so many pixels along a side; 0: a whole pass.

        They are the first ones, and fewer for a larger window. The first of several reads the image and does little
        work, so that it alone does not repay the copying; none does where the batch saves too little work
        (benchmarks/evaluation/query_time.py).
        """
        count = self.count_small(pixels)
        if count == 1 < len(self.layers) or (count and images * self._saved(pixels, count) < LEAST_SAVED * count):
            return 0
        return count

    def count_small(self, pixels: int) -> int:
        """Count the first cached layers whose crops around windows of so many pixels along a side are small."""
        count = 0
        for layer in self.layers:
            if layer.crop(pixels) ** 2 > LARGEST_CROP * (layer.stride * layer.size) ** 2:
                break
            pixels, count = layer.count(pixels), count + 1
        return count

    @torch.no_grad()
    def _saved(self, pixels: int, count: int) -> float:
        """Count the operations that an image saves, once for each size of window; infinite if none can be counted."""
        if (pixels, count) not in self.saved:
            x, on_pass, self.on_pass = self.example, self.on_pass, lambda _: None
            first = torch.zeros(len(x), dtype=torch.long, device=x.device)
            with FlopCounterMode(display=False) as whole:
                maps = self.compute_maps(x, count)
            with FlopCounterMode(display=False) as part:
                self(x, (first, first), pixels, maps)
            self.on_pass, total = on_pass, whole.get_total_flops()
            self.saved[pixels, count] = (total - part.get_total_flops()) / len(x) if total else float("inf")
        return self.saved[pixels, count]

    def compute_maps(self, x: Float[Tensor, "b c h w"], count: int) -> list[Float[Tensor, "b m m d"]]:
        """Compute the outputs of the first `count` cached layers by a whole pass; channels come last."""
        maps: list[Tensor] = []

        def keep(out: Tensor) -> None:
            maps.append(_channels_last(out).clone())

        self.on_pass(len(x))
        with layer_hooks(self.layers, [keep] * count):
            self.model(x)
        return maps

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        corner: Corner,
        pixels: int,
        maps: Sequence[Tensor],
    ) -> tuple[Float[Tensor, "b k"], list[Change]]:
        """Compute the logits of images that differ in a window from those of the maps.

        Args:
            x: the images after the change.
            corner: row and column of the first pixel of each image's window.
            pixels: pixels along a side of the windows.
            maps: maps of the images before the change, at least one, as `compute_maps` gives them; written to, so that
                they are those of `x` afterwards.

        Returns:
            The logits, and the changes that were written into the maps.
        """
        steps, changes = self._plan(corner, pixels, maps), list[Change]()

        # The model runs as it is; a hook on each cached layer swaps what flows on. Its layer has seen a crop, so the
        # outputs that the window reaches are cut out of the result and written into the map. The next layers are given
        # a crop of that map or, after the last cached layer, all of it: the rest of the pass is an ordinary one.
        def hook(at: int) -> Hook:
            def write(out: Tensor) -> Tensor:
                step = steps[at]
                changes.append(_put(step.map, step.corner, _take(_channels_last(out), step.inside, step.count)))
                return steps[at + 1].crop_of(step.map) if at + 1 < len(steps) else _channels_first(step.map)

            return write

        self.on_pass(len(x))
        with layer_hooks(self.layers, [hook(at) for at in range(len(steps))]):
            return self.model(steps[0].crop_of(_channels_last(x))), changes

    def _plan(self, corner: Corner, pixels: int, maps: Sequence[Tensor]) -> list["_Step"]:
        """Work out, layer by layer, the crop to compute from and the outputs that the window reaches."""
        steps: list[_Step] = []
        for layer, layer_map in zip(self.layers, maps, strict=False):
            crop = layer.crop(pixels)
            (top, count), (left, _) = layer.changed(corner[0], pixels), layer.changed(corner[1], pixels)
            begin = (layer.begin(top, crop), layer.begin(left, crop))
            # The layer's outputs on the crop begin with the one at begin / stride, as crops begin at whole strides.
            inside = (top - begin[0] // layer.stride, left - begin[1] // layer.stride)
            steps.append(_Step(layer_map, begin, crop, inside, (top, left), count))
            corner, pixels = (top, left), count  # to the next layer, these outputs are the window
        return steps


@dataclass(frozen=True)
class _Step:
    """The way from one map to the next.

    Args:
        map: map to write to.
        begin: first pixel of the crop of the map before (or of the image).
        crop: pixels along a side of that crop.
        inside: first changed output in the layer's output on the crop.
        corner: first changed output in the map.
        count: changed outputs along a side.
    """

    map: Tensor
    begin: Corner
    crop: int
    inside: Corner
    corner: Corner
    count: int

    def crop_of(self, before: Tensor) -> Tensor:
        return _take(before, self.begin, self.crop)


def _lines(maps: Tensor, corner: Corner, pixels: int) -> Int[Tensor, "b n"]:
    """Positions of the first pixel of each line of each map's window, among the pixels of all maps."""
    b, h, w = maps.shape[:3]
    steps = torch.arange(pixels, device=maps.device)
    tops = torch.arange(b, device=maps.device) * h + corner[0]
    return (tops[:, None] + steps) * w + corner[1][:, None]


def _take(maps: Float[Tensor, "b h w c"], corner: Corner, pixels: int) -> Float[Tensor, "b c n n"]:
    """Copy a window out of each map, a line at a time: its pixels and their channels lie side by side in memory."""
    b, h, w, c = maps.shape
    # Row i of this view is the line of `pixels` pixels from pixel i on; rows overlap, and nothing is copied.
    lines = torch.as_strided(maps, (b * h * w - pixels + 1, pixels * c), (c, 1))
    window = lines.index_select(0, _lines(maps, corner, pixels).flatten())
    return _channels_first(window.reshape(b, pixels, pixels, c))


def _put(maps: Float[Tensor, "b h w c"], corner: Corner, window: Float[Tensor, "b c n n"]) -> Change:
    """Write a window into each map, and return how to undo that."""
    pixels = window.shape[2]
    steps = torch.arange(pixels, device=maps.device)
    rows, flat = (_lines(maps, corner, pixels)[..., None] + steps).flatten(), maps.flatten(0, 2)
    change = Change(flat, rows, flat.index_select(0, rows), pixels**2)
    flat.index_copy_(0, rows, _channels_last(window).reshape(len(rows), -1))
    return change


def _channels_last(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w c"]:
    return maps.permute(0, 2, 3, 1).contiguous()


def _channels_first(maps: Float[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """View a map as convolutions take it, (b, c, h, w); in memory the channels stay last."""
    return maps.permute(0, 3, 1, 2)


def _find_layers(incremental: Incremental, example: Tensor) -> None:
    """Add layers to cache, from the image on, for as long as crops around a single pixel are small.

    A layer that reads no neighbours takes the place of the cached layer before it. One that is left out by a path
    around it, or whose output is written to by a later layer, shows in the logits or in the maps, and is not cached.
    """
    for module in find_candidates(incremental.model, example):
        before = incremental.layers
        try:
            layer = measure_receptive_field(incremental.model, before, module, example)
            if layer is None:
                continue
            if before and layer.stride == 1 and layer.before == layer.after == 0:
                incremental.layers = [*before[:-1], replace(before[-1], layer=module)]
            else:
                incremental.layers = [*before, layer]
            if incremental.count_small(1) < len(incremental.layers):
                incremental.layers = before
                return
            exact = _is_exact(incremental, example)
        # A model of its user's: whatever a layer raises when it is given a crop, it is not cached.
        except Exception as error:
            logger.debug("the output of %s cannot be cached: %s", type(module).__name__, error)
            exact = False
        if not exact:
            incremental.layers = before


def _is_exact(incremental: Incremental, example: Tensor) -> bool:
    """True if logits and maps are those of whole passes, for windows in the middle, in corners and between."""
    size, count = example.shape[3], len(incremental.layers)
    for pixels in (1, 5):
        if incremental.count_small(pixels) < count:
            continue
        last = size - pixels
        places = torch.tensor([(0, 0), (last, 0), (1, last - 1), (last, last), (last // 2, last // 2), (last // 3, 2)])
        image = example[torch.arange(len(places)) % len(example)]
        changed, maps = image.clone(), incremental.compute_maps(image, count)
        for one, (row, column) in zip(changed, places.tolist(), strict=True):
            window = one[:, row : row + pixels, column : column + pixels]
            window.copy_(1 - window.round())
        top, left = places.to(image.device).unbind(1)
        logits, _ = incremental(changed, (top, left), pixels, maps)
        expected = [incremental.model(changed), *incremental.compute_maps(changed, count)]
        if not all(have_equal_logits(one, other) for one, other in zip([logits, *maps], expected, strict=True)):
            return False
    return True
