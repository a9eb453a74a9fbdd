import numpy as np
import pytest
import torch

from uiat.attacks.random_numbers import keys
from uiat.evaluation.corruptions import KINDS, blur, corrupt, noise
from uiat.evaluation.corruptions.kinds import CIFAR_10_C, IMAGENET_C


def test_filters_sum_to_one():
    for published in (CIFAR_10_C, IMAGENET_C):
        for radius, softness in published["defocus_blur"]:
            kernel = blur.disc(radius, softness)
            assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
            torch.testing.assert_close(kernel, kernel.T)
            torch.testing.assert_close(kernel, kernel.flip(0))
        for radius, deviation in published["motion_blur"]:
            assert blur.streak_weights(radius, deviation).sum().item() == pytest.approx(1, abs=1e-5)
    for deviation in (0.05, 0.4, 1.5, 40.0):
        for edge in ("nearest", "reflect"):
            torch.testing.assert_close(blur.smoothing(9, deviation, edge=edge).sum(1), torch.ones(9))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "blur" in kind] + ["elastic_transform", "pixelate", "contrast"]
)
@pytest.mark.parametrize("side", [16, 96])
def test_constant_images_stay_under_what_only_moves_or_mixes_pixels(kind, side):
    x = torch.rand(3, 3, 1, 1).expand(-1, -1, side, side)
    for severity in (1, 5):
        torch.testing.assert_close(corrupt(x, kind, severity), x, atol=2e-6, rtol=0)


def test_gaussian_filter_is_that_of_scipy():
    from scipy.ndimage import gaussian_filter

    x = torch.rand(1, 1, 12, 7)
    for deviation, edge in ((0.4, "nearest"), (2.0, "nearest"), (2.0, "reflect"), (30.0, "reflect")):
        ours = blur.smooth(x, deviation, truncate=3, edge=edge)[0, 0]
        theirs = gaussian_filter(x[0, 0].double().numpy(), deviation, mode=edge, truncate=3)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_glass_copies_as_a_loop_in_place_would():
    height, width, reach, key = 11, 9, 3, keys(0, torch.arange(2))
    moves = (noise.uniform(key, (2, height, width)) * 2 * reach).long() - reach
    source = blur._copy_sources(height, width, reach, key)
    for b in range(2):
        shown = np.arange(height * width).reshape(height, width)
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                shown[h, w] = shown[h + moves[b, 0, h, w], w + moves[b, 1, h, w]]
        np.testing.assert_array_equal(source[b].numpy(), shown.ravel())


def test_streak_points_where_it_should():
    x = torch.zeros(2, 1, 9, 9)
    x[:, :, 4, 4] = 1
    right, down = blur.streak(x, torch.tensor([180.0, -90.0]), radius=2, deviation=3.0)[:, 0]
    weights = blur.streak_weights(2, 3.0)
    torch.testing.assert_close(right[4, 4:], weights)
    torch.testing.assert_close(down[4:, 4], weights)
    assert right.sum().item() == pytest.approx(1)


def test_magnified_centre():
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(blur.magnify(x, 1.0), x)
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    # 4 pixels, from 2 to 5, spread over 8.
    torch.testing.assert_close(blur.magnify(ramp, 2.0)[0, 0, 0], torch.linspace(2, 5, 8))
