"""A model read as a graph computes what the model does, and what cannot be read is refused by its name."""

import pytest
import torch
from torch import nn

from uiat import UserError, models
from uiat.certify.network import trace_network


@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8", "resnet18"])
def test_the_graph_of_each_model_computes_its_logits(name):
    side = 28 if name == "mnist-cnn" else 8
    model = models.build(name, num_classes=4, image_shape=(2, side, side), width=4, mean=[0.2, 0.4], std=[0.5, 0.3])
    model.train()(torch.rand(8, 2, side, side))  # running statistics other than 0 and 1
    x = torch.rand(3, 2, side, side)
    network = trace_network(model)
    assert model.training  # the model itself is left as it is
    torch.testing.assert_close(network(x), model.eval()(x).double(), rtol=1e-4, atol=1e-5)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(1, 2, 3, padding=1, groups=1), nn.AvgPool2d(2), nn.Linear(8, 3)

    def forward(self, x):
        out = torch.relu(self.conv(x))
        out = self.pool(out + nn.functional.relu(self.conv(x)))
        return self.head(torch.flatten(out, 1))


def test_a_forward_of_ones_own_is_followed():
    model, x = Own(), torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(trace_network(model)(x), model(x).double(), rtol=1e-5, atol=1e-6)


class Decides(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Scales(nn.Module):
    def forward(self, x):
        return x.flatten(1) * 2


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Tanh()), r"layer 2 \(Tanh\); they are of Conv2d, Linear"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), r"layer 0 \(MaxPool2d\)"),
        (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)), "layer 0, BatchNorm2d"),
        (nn.Sequential(nn.Flatten(0)), "layer 0, Flatten"),
        (Decides(), "Decides: its forward cannot be read"),
        (Scales(), "operation mul; they are of"),
        (models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4, activation="silu"), r"act \(SiLU\)"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(model, says):
    with pytest.raises(UserError, match=says) as caught:
        trace_network(model)
    assert "\n" not in str(caught.value)
