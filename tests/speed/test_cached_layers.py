"""Receptive fields: as measured for layers whose field is known, and as used to cut crops out of a map."""

import pytest
import torch
from torch import nn

from uiat.speed.cached_layers import CachedLayer, find_candidates, measure_receptive_field


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(1, 2, 3, padding=1), (1, 1, 1, 16)),
        (nn.Conv2d(1, 2, 3, padding=1, stride=2), (2, 1, 1, 8)),
        (nn.Conv2d(1, 2, 1), (1, 0, 0, 16)),
        (nn.Conv2d(1, 2, 2, stride=2), (2, 0, 1, 8)),
        (nn.AvgPool2d(4), (4, 0, 3, 4)),
        (
            nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1, stride=2)),
            (2, 3, 3, 8),
        ),
    ],
    ids=["3x3", "3x3 stride 2", "1x1", "2x2 stride 2", "pooling", "two"],
)
def test_a_receptive_field_is_measured(layer, expected):
    found = measure_receptive_field(layer, [], layer, torch.rand(1, 1, 16, 16))
    assert (found.stride, found.before, found.after, found.size) == expected


def test_fields_are_measured_from_the_map_before():
    first, second = nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(2, 2, 3, padding=1)
    model, x = nn.Sequential(first, second), torch.rand(1, 1, 16, 16)
    one = measure_receptive_field(model, [], first, x)
    two = measure_receptive_field(model, [one], second, x)
    assert ((one.before, one.after), (two.before, two.after)) == ((2, 2), (1, 1))
    assert (measure_receptive_field(model, [], second, x).before, find_candidates(model, x)) == (3, [first, second])


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(1, 1, 15, padding=7), nn.Conv2d(1, 1, 3, stride=2)],
    ids=["reaches the edge", "does not divide the side"],
)
def test_a_layer_that_sees_too_far_or_does_not_fit_has_no_field(layer):
    assert measure_receptive_field(layer, [], layer, torch.rand(1, 1, 16, 16)) is None


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 1), (3, 0), (2, 5)])
@pytest.mark.parametrize("pixels", [1, 2, 3, 7])
def test_the_outputs_of_a_window_and_the_crop_they_are_computed_from(stride, before, after, pixels):
    """Against all outputs and inputs, one by one."""
    size = 16
    layer = CachedLayer(nn.Identity(), stride, before, after, size)
    crop = layer.crop(pixels)
    for start in range(stride * size - pixels + 1):
        window = range(start, start + pixels)
        read = [set(range(stride * o - before, stride * o + after + 1)) for o in range(size)]
        reached = [o for o in range(size) if read[o] & set(window)]
        first, count = layer.changed(torch.tensor(start), pixels)
        outputs = range(int(first), int(first) + count)
        assert set(reached) <= set(outputs) <= set(range(size))
        begin = int(layer.begin(first, crop))
        beyond = {*range(-before, 0), *range(stride * size, stride * size + after)}  # padding
        assert begin % stride == 0
        if crop <= stride * size:
            assert all(read[o] <= {*range(begin, begin + crop), *beyond} for o in outputs)
