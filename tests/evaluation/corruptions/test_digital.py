import sys

import numpy as np
import pytest
import torch
from torch import nn

from uiat import UserError
from uiat.evaluation.corruptions import corrupt, digital
from uiat.evaluation.corruptions.kinds import CIFAR_10_C


def test_contrast_shrinks_towards_the_mean():
    x = torch.rand(4, 3, 8, 8)
    mean = x.mean(dim=(2, 3), keepdim=True)
    for severity, (fraction,) in enumerate(CIFAR_10_C["contrast"], 1):
        torch.testing.assert_close(corrupt(x, "contrast", severity) - mean, fraction * (x - mean))


@pytest.mark.parametrize(("n", "m"), [(32, 30), (32, 20), (32, 24), (224, 56), (7, 5), (9, 3), (30, 32), (20, 32)])
def test_box_filter_is_that_of_pillow(n, m):
    from PIL import Image

    line = np.random.default_rng(0).random((1, n), dtype=np.float32)
    theirs = np.asarray(Image.fromarray(line).resize((m, 1), Image.Resampling.BOX))
    np.testing.assert_allclose(digital.boxes(n, m).numpy() @ line[0], theirs[0], atol=1e-6)


def test_pixelate_makes_constant_blocks():
    x = torch.rand(2, 3, 128, 128)
    blocks = corrupt(x, "pixelate", 5).view(2, 3, 32, 4, 32, 4)  # a quarter of the size, and back
    torch.testing.assert_close(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    torch.testing.assert_close(blocks[:, :, :, 0, :, 0], nn.functional.avg_pool2d(x, 4))


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match="jpeg_compression needs Pillow"):
        corrupt(torch.rand(1, 3, 8, 8), "jpeg_compression", 1)
