"""A folder of image files, 12 to train and 6 to test."""

import pytest

from support.images import write_images
from uiat.data import Folder, open_folder


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("torchvision")
    write_images(tmp_path / "train", ("cat", "dog", "eel"), 4)
    write_images(tmp_path / "val", ("cat", "dog", "eel"), 2)
    return tmp_path


@pytest.fixture
def folder(root) -> Folder:
    return open_folder(root, "train", image_size=8)
