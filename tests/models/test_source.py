"""A built-in model as source: whoever runs it has the same model, with plain PyTorch."""

import importlib.util
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from uiat.errors import UserError
from uiat.models import build
from uiat.models.source import has_source, to_source


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small-cnn", {"width": 4}),
        ("mnist-cnn", {"width": 4, "activation": "silu"}),
        ("preact-resnet8", {"width": 4}),
        ("preact-resnet18", {"width": 4}),
        ("resnet18", {"width": 4, "activation": "silu"}),
        ("wrn-10-1", {"width": 4}),
    ],
)
def test_the_source_makes_the_same_model(name, options, tmp_path):
    model = build(name, num_classes=5, image_shape=(3, 16, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.weight)
    assert has_source(model)
    (tmp_path / "model.py").write_text(to_source(model))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    spec = importlib.util.spec_from_file_location("exported", tmp_path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded, x = module.load(), torch.rand(3, 3, 16, 16)
    assert not loaded.training
    assert torch.equal(loaded(x), model.eval()(x))
    assert torch.equal(loaded.features(x), model.features(x))


def test_the_source_imports_torch_and_safetensors_alone():
    source = to_source(build("preact-resnet8", num_classes=2, image_shape=(1, 8, 8), width=4))
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE))
    assert imported == {"collections", "pathlib", "torch", "safetensors"}


def test_a_layer_that_is_not_known_is_named():
    model = nn.Sequential(nn.Flatten(), nn.Bilinear(2, 2, 2))
    assert not has_source(model)
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Bilinear cannot be written as source"):
        to_source(model)

    class Mine(nn.Linear):
        """A subclass may compute something else."""

    assert not has_source(Mine(1, 1))
