"""Grad-CAM where its answer is known, and without a trace on the network."""

import torch
from torch import nn

from support.helpers import assert_untouched, batch, cnn, snapshot
from uiat.models import build
from uiat.models.grad_cam import grad_cam


class OneWeight(nn.Module):
    """Two channels, the image and its negative, pooled and weighed: evidence for class 0 is where the image is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def test_the_evidence_is_where_it_is_and_relu_cuts_what_speaks_against():
    x = torch.zeros(2, 1, 4, 4)
    x[:, 0, 1, 2], x[:, 0, 3, 3] = 1.0, 0.25
    found = grad_cam(OneWeight(), x, torch.tensor([0, 1]))
    # Class 0: a_0 = 3/16, A_0 = x, so relu(a_0 x) scaled by its maximum is x. Class 1: a_1 A_1 = -x / 8, cut to 0.
    torch.testing.assert_close(found[0], x[0])
    assert not found[1].any()


def test_a_small_map_is_interpolated_to_the_image_and_scaled():
    for name, size in (("small-cnn", 8), ("preact-resnet8", 32), ("resnet18", 32)):
        model = build(name, num_classes=3, image_shape=(1, size, size), width=4).eval()
        found = grad_cam(model, torch.rand(2, 1, size, size), torch.tensor([0, 2]))
        assert found.shape == (2, 1, size, size)
        assert found.min() >= 0
        assert found.max() <= 1


def test_it_leaves_no_trace():
    model, b = cnn(), batch()
    model.eval()
    before = snapshot(model)
    hooks = [len(m._forward_hooks) for m in model.modules()]
    grad_cam(model, b.x, b.y)
    assert_untouched(model, before)
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert not b.x.requires_grad
