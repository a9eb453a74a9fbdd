"""Images and labels in .npz files: which arrays are meant, how channels lie, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from uiat.data import has_test_part, load
from uiat.errors import UserError


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


BYTES = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])


def opened(split="test", **arrays):
    np.savez("a.npz", **arrays)
    return load("npz:a.npz", split)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": BYTES, "y": Y},
        {"images": BYTES.transpose(0, 3, 1, 2), "labels": Y[:, None].astype(np.uint8)},
        {"X": BYTES.astype(np.int64), "Y": Y.astype(np.int32)},
        {"x_train": BYTES[:3], "y_train": Y[:3], "x_test": BYTES, "y_test": Y},
        {"train_images": BYTES[:3], "train_labels": Y[:3], "val_images": BYTES, "val_labels": Y},
    ],
)
def test_the_same_pixels_come_out_of_every_layout(arrays):
    data = opened(**arrays)
    assert torch.equal(data.images, torch.from_numpy(BYTES.transpose(0, 3, 1, 2).copy()))
    assert (data.labels.tolist(), data.num_classes, data.name) == (Y.tolist(), 3, "npz:a.npz")
    divided = "x_train" in arrays or "train_images" in arrays
    assert has_test_part("npz:a.npz") == divided
    assert len(load("npz:a.npz", "train")) == (3 if divided else 6)


def test_floats_grey_images_and_names_of_classes():
    x = np.random.default_rng(0).random((6, 8, 9))
    data = opened(x=x, y=Y, classes=np.array(["a", "b", "c", "d"]))
    assert torch.equal(data.images, torch.from_numpy(x).float()[:, None])
    assert (data.classes, data.num_classes) == (("a", "b", "c", "d"), 4)  # of d there is no test image
    small = np.zeros((6, 3, 8, 3), dtype=np.uint8)
    assert opened(x=small, y=Y, layout="NHWC").image_shape == (3, 3, 8)


def test_labels_of_the_train_part_count_as_classes_of_the_test_part():
    assert opened(x_train=BYTES, y_train=Y, x_test=BYTES[:2], y_test=Y[:2]).num_classes == 3


def test_parts_may_have_their_channels_in_other_places():
    parts = {"x_train": BYTES, "y_train": Y, "x_test": BYTES.transpose(0, 3, 1, 2), "y_test": Y}
    assert torch.equal(opened(**parts).images, load("npz:a.npz", "train").images)


def test_test_images_of_classes_that_are_not_trained_are_named_as_such():
    opened(x_train=BYTES, y_train=Y, x_test=BYTES, y_test=Y + 1)  # to evaluate on them is no mistake
    with pytest.raises(UserError, match="y_test reaches up to 3 and y_train to 2: add training images"):
        load("npz:a.npz", "train")


WRONG = [
    ({"a": BYTES, "y": Y}, "y has no images beside it; add an array x"),
    ({"x": BYTES}, "x has no labels beside it; add an array y"),
    ({"x_test": BYTES, "labels": Y}, "x_test has no labels beside it; add an array y_test"),
    ({"a": BYTES}, r"no images and labels among its arrays \(a\); call them x and y"),
    ({"x": BYTES, "images": BYTES, "y": Y}, "x and images may both be the images"),
    ({"x": BYTES, "y": Y[:5]}, "x holds 6 images and y 5 labels"),
    ({"x": BYTES, "y": np.eye(3)[Y]}, r"y must be class numbers of shape \(n,\), not \(6, 3\); of one-hot"),
    ({"x": BYTES, "y": Y / 2}, "y must be whole class numbers, not float64"),
    ({"x": BYTES, "y": Y - 1}, "y reaches down to -1; class numbers begin at 0"),
    ({"x": BYTES, "y": np.array([0, 1, 2, 0, 1, 2**64 - 1], dtype=np.uint64)}, "y reaches up to 18446744073709551615"),
    ({"x": BYTES, "y": np.full(6, 1_000_000)}, "class numbers are below 1,000,000"),
    ({"x": (BYTES > 99).astype(np.int64), "y": Y}, "is of int64 and holds 0 and 1 alone; if 1 is white, give floats"),
    (
        {"x_train": BYTES[:, :8, :8], "y_train": Y, "x_test": BYTES, "y_test": Y},
        r"x_test has shape \(6, 8, 9, 3\): the",
    ),
    ({"x_train": BYTES[..., 0], "y_train": Y, "x_test": BYTES, "y_test": Y}, "one size and as many channels"),
    ({"x": BYTES, "y": Y, "classes": np.array(["a", "b"])}, "labels run from 0 to 2 but must lie in 0 .. 1"),
    ({"x": BYTES, "y": Y * 2}, "no image of class '1'"),
    ({"x": BYTES.reshape(6, -1), "y": Y}, r"must be images .*, not of shape \(6, 216\)"),
    ({"x": np.zeros((6, 3, 8, 3)), "y": Y}, "the channels may be first or last: add an array layout"),
    ({"x": np.zeros((6, 8, 9, 13)), "y": Y}, "the channels may be first or last"),
    ({"x": BYTES.astype(np.int32) * 9, "y": Y}, "is of int32 and runs from"),
    ({"x": BYTES.astype(np.float32), "y": Y}, "divide by 255"),
    ({"x": np.full((6, 8, 9), np.nan), "y": Y}, "the images hold NaN"),
    ({"x": np.array(["a"] * 6), "y": Y}, "x is an array of <U1, not of numbers"),
    ({"x": np.array([print] * 6, dtype=object), "y": Y}, "it holds Python objects .*, which are never read"),
    ({"x_test": BYTES, "y_test": Y}, "has no train part: add arrays x_train and y_train"),
]


@pytest.mark.parametrize(("arrays", "message"), WRONG)
def test_what_cannot_be_meant_is_refused_in_one_line(arrays, message):
    with pytest.raises(UserError, match=message) as refused:
        opened("train", **arrays)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("npz:a.npz")


def test_files_that_are_none_are_refused():
    Path("text.npz").write_text("text")
    np.save("one.npy", BYTES)
    opened(x=BYTES, y=Y)
    content = Path("a.npz").read_bytes()
    Path("cut.npz").write_bytes(content[: len(content) // 2])
    os.mkdir("folder")
    for name, message in (
        ("text.npz", "it holds Python objects|it is damaged"),
        ("cut.npz", "it is damaged"),
        ("one.npy", "it holds one array"),
        ("folder", "it is a folder"),
        ("gone.npz", "there is no such file"),
    ):
        with pytest.raises(UserError, match=f"^npz:{name}.*({message})"):
            load(f"npz:{name}", "train")
    with pytest.raises(UserError, match="an image size is for"):
        load("npz:a.npz", "train", image_size=8)
