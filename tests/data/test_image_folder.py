"""Folders of image files: listed, decoded on demand, and refused with the name of the file."""

import numpy as np
import pytest
import torch

from support.images import write_images
from uiat.data import Folder, ImageSet, StreamingLoader, load, open_data, open_folder, split_validation, statistics
from uiat.errors import UserError


def test_an_image_folder_by_name(root):
    train, test = (load(f"imagefolder:{root}", split) for split in ("train", "test"))
    from PIL import Image

    assert (len(train), len(test), train.image_shape) == (12, 6, (3, 12, 10))
    assert train.classes == ("cat", "dog", "eel")
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    with Image.open(root / "train" / "dog" / "1.png") as image:
        pixels = torch.from_numpy(np.array(image))
    assert torch.equal(train.images[5], pixels.permute(2, 0, 1))
    assert load(f"imagefolder:{root}", "train", image_size=8).image_shape == (3, 8, 8)
    (root / "val").rename(root / "test")
    assert len(load(f"imagefolder:{root}", "test")) == 6


def test_a_folder_is_listed_before_it_is_decoded(root):
    data = open_data(f"imagefolder:{root}", "train", image_size=8)
    assert isinstance(data, Folder)
    assert (len(data), data.num_classes, data.image_shape, data.num_bytes) == (12, 3, (3, 8, 8), 12 * 3 * 64)
    train, validation, index = split_validation(data, size=3, seed=1)
    assert isinstance(train, Folder)
    assert isinstance(validation, ImageSet)
    assert (len(train), validation.labels.tolist()) == (9, [0, 1, 2])
    assert train.paths == tuple(data.paths[i] for i in index.tolist())
    assert torch.equal(train.decode().images, data.decode().images[index])
    assert statistics(data) == statistics(data.decode())


def test_folders_that_are_not_right(root, tmp_path_factory):
    with pytest.raises(UserError, match="no such folder"):
        load(f"imagefolder:{root}/nowhere", "train")
    with pytest.raises(UserError, match="train part only; move them"):
        load(f"imagefolder:{root}/train", "test")
    assert len(load(f"imagefolder:{root}/train", "train")) == 12
    with pytest.raises(UserError, match="at least 1 pixel"):
        load(f"imagefolder:{root}", "train", image_size=0)
    with pytest.raises(UserError, match="one folder of images a class"):
        load(f"imagefolder:{tmp_path_factory.mktemp('empty')}", "train")
    write_images(root / "train", ("fox",), 1)
    with pytest.raises(UserError, match=r"other class folders than the train part \(fox\)"):
        load(f"imagefolder:{root}", "test")
    (root / "val").rename(root / "other")
    with pytest.raises(UserError, match=r"neither .* exists"):
        load(f"imagefolder:{root}", "test")


def test_an_image_that_differs_or_is_broken_is_named(root):
    write_images(root / "train", ("fox",), 2, size=(20, 30))
    with pytest.raises(UserError, match=r"fox.*is \(20, 30\) pixels but the first one of the set is \(12, 10\)"):
        load(f"imagefolder:{root}", "train")
    assert len(load(f"imagefolder:{root}", "train", image_size=8)) == 14
    (root / "train" / "fox" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read the image .*fox/1\.png"):
        load(f"imagefolder:{root}", "train", image_size=8)
    streaming = StreamingLoader(open_folder(root, "train", image_size=8), batch_size=14, num_workers=0)
    with pytest.raises(UserError, match=r"cannot read the image .*fox/1\.png"):
        list(streaming.epoch(0))
