"""A trained model that attacks are compared with their references on."""

import pytest
import torch
from torch import Tensor, nn

from uiat import PGD, Linf, data, models


@pytest.fixture(scope="session")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A small adversarially trained model, and 150 test images that it classifies correctly."""
    torch.manual_seed(0)
    x, y = data.tensors("digits", "train")
    model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
    attack = PGD(threat=Linf(0.2), step_size=0.1, steps=3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(6):
        for part in torch.randperm(len(x)).split(64):
            if len(part) == 64:
                loss = nn.functional.cross_entropy(model.train()(attack.perturb(model, x[part], y[part])), y[part])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    x, y = data.tensors("digits", "test")
    model.eval().requires_grad_(False)
    correct = (model(x).argmax(1) == y).nonzero().flatten()[:150]
    return model, x[correct], y[correct]
