"""RandAugment: each operation is torchvision's, and each image gets its own."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from support.images import example
from uiat.data.rand_augment import OPERATIONS, UNSIGNED, rand_augment
from uiat.data.sampling import generator

THEIRS = {
    "identity": "Identity",
    "shear-x": "ShearX",
    "shear-y": "ShearY",
    "translate-x": "TranslateX",
    "translate-y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "colour": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_operations_are_those_of_torchvision(dtype):
    reference, images = v2.RandAugment(interpolation=InterpolationMode.BILINEAR), example(dtype=dtype).images[:4]
    assert set(THEIRS.values()) == set(reference._AUGMENTATION_SPACE)
    for name, theirs in THEIRS.items():
        magnitudes, signed = reference._AUGMENTATION_SPACE[theirs]
        strengths = magnitudes(31, *images.shape[2:])
        assert (name in UNSIGNED) is not signed
        for sign in (-1, 1) if signed else (1,):
            magnitude = 0.0 if strengths is None else sign * float(strengths[21])
            expected = reference._apply_image_or_video_transform(
                images, theirs, magnitude, interpolation=reference.interpolation, fill=reference._fill
            )
            torch.testing.assert_close(OPERATIONS[name](functional, images, sign * 21 / 30), expected)


def test_each_image_gets_operations_of_its_own():
    images = example().images[:1].expand(64, -1, -1, -1)
    how = {"operations": 1, "magnitude": 15, "batch": 64}
    changed = rand_augment(images, **how, rows=slice(0, 64), random=generator(0))
    kinds = {image.numpy().tobytes() for image in changed}
    assert 12 < len(kinds) <= 23  # 9 with either sign, 5 without
    part = rand_augment(images[:8], **how, rows=slice(8, 16), random=generator(0))
    assert torch.equal(part, changed[8:16])
    assert math.isclose(float((changed == images).flatten(1).all(1).float().mean()), 1 / 14, abs_tol=0.1)
