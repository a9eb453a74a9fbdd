"""Logits of images that changed in a small window: only what the window can reach is computed again.

A random search redraws a few pixels a query, and the first layers of a convolutional network answer almost everywhere
as they did before. So the outputs of a few layers ("cuts") are kept for each image. A pass on a changed image takes a
crop around the window as far as the first cut, writes what can have changed into the map kept there, goes on with a
crop of that map, and so on for as long as crops are small. (Nakandala, Kumar & Papakonstantinou 2019 did so for
occlusion maps.) Where the cuts of a model can be is found by trying them, with logits that have to agree.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat.speed.cached_layers import CachedLayer, Corner, Hook, find_candidates, layer_hooks, measure_receptive_field

logger = logging.getLogger("uiat")

# How far logits may be from those of another form of a model, relative to the largest of them, to count as the same.
TOLERANCE = 1e-4
# A crop of more than this share of a map does not repay the copying around it.
SHARE = 0.5


@dataclass(frozen=True)
class Change:
    """What a pass wrote into maps: the pixels of all, which of them, what was there before, how many an image."""

    flat: Float[Tensor, "m c"]
    rows: Int[Tensor, "n"]
    old: Float[Tensor, "n c"]
    pixels: int

    def undo(self, which: Bool[Tensor, "b"]) -> None:
        """Back to what was there before, for some of the images."""
        again = which.repeat_interleave(self.pixels)
        self.flat.index_copy_(0, self.rows[again], self.old[again])


def have_equal_logits(one: Tensor, other: Tensor) -> bool:
    """Whether two forms of a model say the same; False where either is not finite, too.

    Example:
        >>> (
        ...     have_equal_logits(torch.tensor([1.0]), torch.tensor([1.00001])),
        ...     have_equal_logits(torch.tensor([1.0]), torch.tensor([1.001])),
        ... )
        (True, False)
    """
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())


class Incremental:
    """A model that answers for images that changed in a window, from maps that it keeps of them.

    Args:
        model: a frozen model in eval mode; hooks come and go on its layers.
        example: a few images (B, C, H, W) of its kind.
        told: called with the number of images of each pass.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.AvgPool2d(32), nn.Flatten())
        >>> near, x = Incremental(model, torch.rand(2, 1, 32, 32)), torch.rand(2, 1, 32, 32)
        >>> maps, corner = near.maps(x, near.worth(3)), (torch.tensor([0, 7]), torch.tensor([29, 2]))
        >>> x[0, :, 0:3, 29:32], x[1, :, 7:10, 2:5] = 0.0, 1.0
        >>> torch.allclose(near(x, corner, 3, maps)[0], model(x), atol=1e-6)
        True
    """

    def __init__(self, model: nn.Module, example: Tensor, told: Callable[[int], None] | None = None) -> None:
        self.model = model
        self.told: Callable[[int], None] = lambda count: None
        self.cuts: list[CachedLayer] = []
        if example.ndim == 4 and example.shape[2] == example.shape[3]:
            with torch.no_grad():
                _find(self, example[:2])
        if told is not None:
            self.told = told
        logger.debug("%d layers to keep the outputs of", len(self.cuts))

    def worth(self, pixels: int) -> int:
        """How many of the cuts are worth using for windows of so many pixels along a side; 0: take a whole pass.

        Fewer for a larger window, and those from the first on. The first of several reads the image and does little
        work, so that it alone does not repay the copying (benchmarks/evaluation/query_time.py).
        """
        count = 0
        for cut in self.cuts:
            if cut.crop(pixels) ** 2 > SHARE * (cut.stride * cut.size) ** 2:
                break
            pixels, count = cut.count(pixels), count + 1
        return 0 if count == 1 < len(self.cuts) else count

    def maps(self, x: Float[Tensor, "b c h w"], count: int) -> list[Float[Tensor, "b m m d"]]:
        """What the first `count` cuts put out for these images, by a whole pass; channels come last."""
        kept: list[Tensor] = []

        def keep(out: Tensor) -> None:
            kept.append(_channels_last(out).clone())

        self.told(len(x))
        with layer_hooks(self.cuts, [keep] * count):
            self.model(x)
        return kept

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        corner: Corner,
        pixels: int,
        maps: Sequence[Tensor],
    ) -> tuple[Float[Tensor, "b k"], list[Change]]:
        """Logits of images that differ in a window from those of the maps; and what was changed in the maps.

        Args:
            x: the images, changed.
            corner: row and column of the first pixel of each image's window.
            pixels: pixels along a side of the windows.
            maps: as from `maps`, at least one; written to, so that they are those of `x` afterwards.
        """
        steps, changes = self._steps(corner, pixels, maps), list[Change]()

        def hook(at: int) -> Hook:
            def write(out: Tensor) -> Tensor:
                step = steps[at]
                changes.append(_put(step.map, step.corner, _take(_channels_last(out), step.inside, step.count)))
                return steps[at + 1].cropped(step.map) if at + 1 < len(steps) else _channels_first(step.map)

            return write

        self.told(len(x))
        with layer_hooks(self.cuts, [hook(at) for at in range(len(steps))]):
            return self.model(steps[0].cropped(_channels_last(x))), changes

    def _steps(self, corner: Corner, pixels: int, maps: Sequence[Tensor]) -> list["_Step"]:
        steps: list[_Step] = []
        for cut, kept in zip(self.cuts, maps, strict=False):
            crop = cut.crop(pixels)
            (top, count), (left, _) = cut.changed(corner[0], pixels), cut.changed(corner[1], pixels)
            begin = (cut.begin(top, crop), cut.begin(left, crop))
            inside = (top - begin[0] // cut.stride, left - begin[1] // cut.stride)
            steps.append(_Step(kept, begin, crop, inside, (top, left), count))
            corner, pixels = (top, left), count
        return steps


@dataclass(frozen=True)
class _Step:
    """From one map to the next: where the crop of the one before begins, what of its output is taken, and to where."""

    map: Tensor
    begin: Corner
    crop: int
    inside: Corner
    corner: Corner
    count: int

    def cropped(self, before: Tensor) -> Tensor:
        return _take(before, self.begin, self.crop)


def _lines(maps: Tensor, corner: Corner, pixels: int) -> Int[Tensor, "b n"]:
    """The position of the first pixel of each line of each map's window, among the pixels of all maps."""
    b, h, w = maps.shape[:3]
    steps = torch.arange(pixels, device=maps.device)
    tops = torch.arange(b, device=maps.device) * h + corner[0]
    return (tops[:, None] + steps) * w + corner[1][:, None]


def _take(maps: Float[Tensor, "b h w c"], corner: Corner, pixels: int) -> Float[Tensor, "b c n n"]:
    """A window of each map, a line at a time: its pixels and their channels lie side by side."""
    b, h, w, c = maps.shape
    lines = torch.as_strided(maps, (b * h * w - pixels + 1, pixels * c), (c, 1))
    window = lines.index_select(0, _lines(maps, corner, pixels).flatten())
    return _channels_first(window.reshape(b, pixels, pixels, c))


def _put(maps: Float[Tensor, "b h w c"], corner: Corner, window: Float[Tensor, "b c n n"]) -> Change:
    """Write a window into each map."""
    pixels = window.shape[2]
    steps = torch.arange(pixels, device=maps.device)
    rows, flat = (_lines(maps, corner, pixels)[..., None] + steps).flatten(), maps.flatten(0, 2)
    change = Change(flat, rows, flat.index_select(0, rows), pixels**2)
    flat.index_copy_(0, rows, _channels_last(window).reshape(len(rows), -1))
    return change


def _channels_last(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w c"]:
    return maps.permute(0, 2, 3, 1).contiguous()


def _channels_first(maps: Float[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """A view: to a layer of convolutions, a map in channels-last memory."""
    return maps.permute(0, 3, 1, 2)


def _find(near: Incremental, example: Tensor) -> None:
    """Adds cuts, from the image on, for as long as crops around a single pixel are small.

    A layer that reads no neighbours takes the place of the cut before it. One that is left out by a path around it, or
    whose output is written to by what follows, shows in the logits or in the maps, and is no cut.
    """
    for layer in find_candidates(near.model, example):
        before = near.cuts
        try:
            cut = measure_receptive_field(near.model, before, layer, example)
            if cut is None:
                continue
            if before and cut.stride == 1 and cut.before == cut.after == 0:
                near.cuts = [*before[:-1], replace(before[-1], layer=layer)]
            else:
                near.cuts = [*before, cut]
            if near.worth(1) < len(near.cuts):
                near.cuts = before
                return
            holds = _holds(near, example)
        # A model of its user's: whatever a layer raises when it is given a crop, it is no cut.
        except Exception as error:
            logger.debug("no cut at %s: %s", type(layer).__name__, error)
            holds = False
        if not holds:
            near.cuts = before


def _holds(near: Incremental, example: Tensor) -> bool:
    """Whether logits and maps are those of whole passes, for windows in the middle, in corners and between."""
    size, count = example.shape[3], len(near.cuts)
    for pixels in (1, 5):
        if near.worth(pixels) < count:
            continue
        last = size - pixels
        places = torch.tensor([(0, 0), (last, 0), (1, last - 1), (last, last), (last // 2, last // 2), (last // 3, 2)])
        image = example[torch.arange(len(places)) % len(example)]
        changed, maps = image.clone(), near.maps(image, count)
        for one, (row, column) in zip(changed, places.tolist(), strict=True):
            window = one[:, row : row + pixels, column : column + pixels]
            window.copy_(1 - window.round())
        top, left = places.to(image.device).unbind(1)
        logits, _ = near(changed, (top, left), pixels, maps)
        wanted = [near.model(changed), *near.maps(changed, count)]
        if not all(have_equal_logits(one, other) for one, other in zip([logits, *maps], wanted, strict=True)):
            return False
    return True
