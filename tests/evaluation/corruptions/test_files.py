"""Published corrupted images: arrays as of CIFAR-10-C, image files as of ImageNet-C."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.commands import ask  # noqa: F401 - a fixture
from uiat.errors import UserError
from uiat.evaluation.corruptions import corruption_file_accuracy


class Red(nn.Module):
    """Class 1 where the image is red enough."""

    def forward(self, x):
        red = x[:, 0].mean((1, 2))
        return torch.stack([0.5 - red, red - 0.5], 1)


def write_arrays(folder, kinds=("fog", "snow"), n=4, **labels):
    """In severity s the first s - 1 images of each kind are wrong."""
    folder.mkdir()
    y = np.tile(np.array([0, 1, 0, 1]), 5)
    for kind in kinds:
        red = np.where([(i % n < i // n) ^ (y[i] == 1) for i in range(5 * n)], 255, 0).astype(np.uint8)
        images = np.zeros((5 * n, 8, 8, 3), dtype=np.uint8)
        images[..., 0] = red[:, None, None]
        np.save(folder / f"{kind}.npy", images)
    np.save(folder / "labels.npy", y, **labels)
    return folder


def test_arrays_of_five_severities(tmp_path):
    result = corruption_file_accuracy(Red(), write_arrays(tmp_path / "c"), batch_size=3)
    assert result.accuracy == {kind: {1: 1.0, 2: 0.75, 3: 0.5, 4: 0.25, 5: 0.0} for kind in ("snow", "fog")}
    assert (result.n, result.clean, result.mean) == (4, None, 0.5)
    few = corruption_file_accuracy(Red(), tmp_path / "c", n=2)
    assert (few.n, few.accuracy["fog"]) == (2, {1: 1.0, 2: 0.5, 3: 0.0, 4: 0.0, 5: 0.0})
    assert "none" not in repr(few)


def test_image_files_by_class_in_the_order_of_the_test_images(tmp_path):
    for severity in range(1, 6):
        for name, red in (("a", 255), ("b", 0)):
            folder = tmp_path / "weather" / "fog" / str(severity) / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (red, 0, 0)).save(folder / "1.png")
    assert corruption_file_accuracy(Red(), tmp_path).mean == 0.0  # a is 0, and b is 1
    assert corruption_file_accuracy(Red(), tmp_path, classes=["b", "a"]).mean == 1.0
    with pytest.raises(UserError, match="holds images of 2 classes, and the model tells 3 apart"):
        corruption_file_accuracy(Red(), tmp_path, classes=["a", "b", "c"])


def test_what_is_no_published_set_is_refused(tmp_path):
    folder = write_arrays(tmp_path / "c")

    def refused(message, name="labels.npy", value=None):
        if value is not None:
            np.save(folder / name, value, allow_pickle=value.dtype == object)
        with pytest.raises(UserError, match=message) as error:
            corruption_file_accuracy(Red(), folder)
        assert "\n" not in str(error.value)

    refused("labels.npy holds 7 labels and snow.npy 20 images", value=np.zeros(7, dtype=np.int64))
    refused("labels.npy must hold class numbers", value=np.zeros(20))
    refused("labels.npy is no array .* it holds Python objects, which are never read", value=np.array([print] * 20))
    (folder / "labels.npy").write_text("text")
    refused("labels.npy is no array of images or labels")
    (folder / "labels.npy").unlink()
    refused("snow.npy has no labels.npy beside it")
    np.save(folder / "labels.npy", np.arange(20) % 3)
    refused("labels run up to 2|labels must be in 0..1")
    refused(r"snow.npy must hold uint8 images", "snow.npy", np.zeros((20, 8, 8, 3)))
    with pytest.raises(UserError, match="none of the fifteen corruptions is in it"):
        corruption_file_accuracy(Red(), tmp_path / "c" / "..")


def test_the_command_measures_them_beside_the_attacks(tmp_path, monkeypatch, ask):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    write_arrays(Path("c"))
    Path("net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Red(nn.Module):\n    def forward(self, x):\n"
        "        red = x[:, 0].mean((1, 2))\n        return torch.stack([0.5 - red, red - 0.5], 1)\n\n\n"
        "def make(num_classes, image_shape):\n    return Red()\n"
    )
    x = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    x[1::2, ..., 0] = 255
    np.savez("test.npz", x=x, y=np.array([0, 1, 0, 1]))
    words = ["--data", "npz:test.npz", "--threat", "Linf:0.1", "--attacks", "fgsm", "--out", "out"]
    code, out, err = ask("evaluate", "--model", "net.py:make", *words, "--corruption-files", "c")
    assert (code, "common corruptions, the files in c" in out) == (0, True), out + err
    assert json.loads(Path("out/evaluation.json").read_text())["corruption_files"]["mean"] == 0.5
