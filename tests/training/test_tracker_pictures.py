"""Pictures for trackers."""

import numpy as np
import torch

from uiat import Linf
from uiat.inverse import UniversalPerturbation
from uiat.training.tracker_pictures import draw_perturbations


def test_perturbations_stand_side_by_side_and_grey_is_none(tmp_path):
    z = torch.zeros(12, 1, 8, 8)
    z[1, 0, 0, 0], z[11, 0, 7, 7] = 0.1, -0.1
    UniversalPerturbation(z, Linf(0.1)).save(tmp_path / "inverse.safetensors")
    pixels = draw_perturbations(tmp_path)
    assert (pixels.shape, pixels.dtype) == ((2 * 66, 10 * 66, 3), np.uint8)
    inner = pixels[1:65, 1:65]
    assert np.unique(inner).tolist() == [128]
    assert pixels[1, 66 + 1].tolist() == [255] * 3  # the first pixel of the second
    assert pixels[66 + 64, 66 + 64].tolist() == [0] * 3  # the last of the twelfth
    assert np.unique(pixels[66:, 3 * 66 :]).tolist() == [255]  # none
