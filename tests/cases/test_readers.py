"""What readers of images made of odd files: right values, or a refusal of one line that names the file or folder."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from uiat.data import (
    StreamingLoader,
    from_dataset,
    from_tensors,
    image_file,
    load,
    notices,
    open_data,
    open_folder,
    split_validation,
)
from uiat.data.image_file import read_image
from uiat.errors import UserError

pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")


def grey(where: Path, *classes: str, n: int = 2, ending: str = "png") -> Path:
    """Write n small images for each class folder."""
    for each in classes:
        (where / each).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (4, 4), (40, 40, 40)).save(where / each / f"{i}.{ending}")
    return where


@pytest.fixture
def warned(monkeypatch, caplog):
    monkeypatch.setattr(notices, "_said", set())
    caplog.set_level("WARNING", "uiat")
    return lambda: " | ".join(record.getMessage() for record in caplog.records)


# Modes of pixels


def save(path: Path, array: np.ndarray, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_to_8(tmp_path, ending):
    values = np.array([[0, 128, 129, 257], [20000, 40000, 65407, 65535]], np.uint16)
    path = save(tmp_path / f"a.{ending}", values)
    expected = torch.tensor([[0, 0, 1, 1], [78, 156, 255, 255]], dtype=torch.uint8)
    assert torch.equal(read_image(str(path)), expected.expand(3, 2, 4))
    with Image.open(path) as image:
        assert torch.equal(from_dataset([(image, 0)]).images[0, 0], expected)


def test_12_bits_are_scaled_to_8(tmp_path):
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag > 270 else 3, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + bytes([0x80, 0x0F, 0xFF]))  # 2048 and 4095
    assert len(head) == 122
    assert read_image(str(tmp_path / "a.tif"))[0].flatten().tolist() == [128, 255]


def test_big_endian(tmp_path):
    big = Image.frombytes("I;16B", (2, 1), np.array([0, 65535], ">u2").tobytes())
    assert from_dataset([(big, 0)]).images.flatten().tolist() == [0, 255]
    big.save(tmp_path / "a.tif")
    assert read_image(str(tmp_path / "a.tif"))[0].flatten().tolist() == [0, 255]


def test_colour_of_16_bits(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 65535\n" + np.array([20000, 40000, 65535], ">u2").tobytes())
    assert read_image(str(tmp_path / "a.ppm")).flatten().tolist() == [78, 156, 255]


@pytest.mark.parametrize("array", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70000, np.int32)])
def test_a_file_without_a_fixed_range_is_refused(tmp_path, array):
    path = save(tmp_path / "a.tif", array)
    with pytest.raises(UserError, match=r"a\.tif: its pixels are .* no fixed range; save it with 8 or 16 bits"):
        read_image(str(path))


def test_dark_16_bits_are_a_warning(tmp_path, warned):
    read_image(str(save(tmp_path / "a.png", np.full((4, 4), 4000, np.uint16))))
    assert "a.png has 16 bits a pixel and none above 4095" in warned()


def test_transparency_palette_and_cmyk(tmp_path, warned):
    colour = (200, 100, 50)
    Image.new("RGBA", (2, 2), (*colour, 255)).save(tmp_path / "opaque.png")
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, *colour])
    palette.save(tmp_path / "palette.png")
    for name in ("opaque", "palette"):
        assert read_image(str(tmp_path / f"{name}.png"))[:, 0, 0].tolist() == list(colour)
    Image.new("CMYK", (2, 2), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    assert (read_image(str(tmp_path / "cmyk.jpg")) == 255).all()
    Image.new("1", (2, 2), 1).save(tmp_path / "bit.png")
    assert (read_image(str(tmp_path / "bit.png")) == 255).all()
    assert not warned()
    Image.new("RGBA", (2, 2), (*colour, 0)).save(tmp_path / "clear.png")
    assert read_image(str(tmp_path / "clear.png"))[:, 0, 0].tolist() == list(colour)
    palette.save(tmp_path / "hole.png", transparency=1)
    read_image(str(tmp_path / "hole.png"))
    assert warned().count("the alpha channel is dropped") == 1
    assert "clear.png is transparent in places" in warned()


def test_floats_of_datasets():
    image = Image.fromarray(np.full((4, 4), 0.7, np.float32))
    assert from_dataset([(image, 0)]).images.unique().tolist() == pytest.approx([0.7])
    for wrong in (np.full((4, 4), 70.0, np.float32), Image.fromarray(np.full((4, 4), 70.0, np.float32))):
        with pytest.raises(UserError, match="divide by 255"):
            from_dataset([(wrong, 0)])


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([np.full((4, 4), 40000, np.uint16)], "not torch.uint16; divide them by the largest value .*65535"),
        ([np.full((4, 4), 200, np.int64)], r"convert them by x\.to\(torch\.uint8\)"),
        ([np.ones((4, 4), bool)], r"x\.float\(\)"),
        ([np.zeros((4, 4), np.uint8), np.ones((4, 4))], "image 1 is torch.float32 but image 0 is torch.uint8"),
        ([np.zeros((3, 8, 8), np.uint8)], r"image 0 is an array of shape \(3, 8, 8\).* channels first"),
        ([torch.zeros(8, 8, 3)], "channels last"),
        ([np.full((4, 4), "a", object)], "image 0 must be a tensor or an array of numbers, not an array of object"),
        ([Image.fromarray(np.full((4, 4), 70000, np.int32))], "image 0: its pixels are 32-bit integers"),
    ],
)
def test_items_of_doubtful_range_are_refused(items, says):
    with pytest.raises(UserError, match=says):
        from_dataset([(image, 0) for image in items])


def test_tensors(warned):
    expected = torch.rand(2, 1, 4, 4)
    big = expected.numpy().astype(">f4")
    assert torch.equal(from_tensors(big, [0, 1]).images, expected)
    assert torch.equal(from_tensors(big[:, :, ::-1], [0, 1]).images, expected.flip(2))
    with pytest.raises(UserError, match="channels last"):
        from_tensors(torch.rand(2, 8, 8, 3), [0, 1])
    with pytest.raises(UserError, match="labels must be a tensor or an array of numbers"):
        from_tensors(expected, np.array(["cat", "dog"]))
    from_tensors(torch.ones(2, 1, 4, 4, dtype=torch.uint8), [0, 1])
    assert "none is above 1; multiply them by 255" in warned()


# Order and names of classes


@pytest.mark.parametrize(
    ("names", "expected", "says"),
    [
        ([*map(str, range(12))], [*map(str, range(12))], "numeric order (0, 1, 2, 3, ...)"),
        (["-1", "10", "9"], ["-1", "9", "10"], "numeric order"),
        (["00", "01", "02", "10"], ["00", "01", "02", "10"], ""),
        (["7", "8", "9"], ["7", "8", "9"], ""),
        (["9", "10", "other"], ["10", "9", "other"], "sorted as words"),
        (["c1", "c2", "c10"], ["c1", "c10", "c2"], "sorted as words (c1, c10, c2)"),
        (["dog", "Cat"], ["Cat", "dog"], ""),
    ],
)
def test_the_order_of_classes(tmp_path, warned, names, expected, says):
    grey(tmp_path, *names, n=1)
    data = open_data(f"imagefolder:{tmp_path}", "train")
    assert list(data.classes) == expected
    assert [Path(path).parent.name for path in data.paths] == expected
    assert (says in warned()) if says else not warned()
    before = warned()
    open_data(f"imagefolder:{tmp_path}", "train")
    assert warned() == before, "said once"


def test_numbered_classes_of_train_and_test_agree(tmp_path):
    for part in ("train", "test"):
        grey(tmp_path / part, *map(str, range(11)), n=1)
    train, test = (open_data(f"imagefolder:{tmp_path}", part).classes for part in ("train", "test"))
    assert train == test == tuple(map(str, range(11)))
    (tmp_path / "test" / "10").rename(tmp_path / "test" / "11")
    with pytest.raises(UserError, match=r"other class folders than the train part \(10, 11\)"):
        open_data(f"imagefolder:{tmp_path}", "test")


# Parts, hidden folders and links


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("training", "testing"), ("TRAIN", "VAL"), ("train", "valid"), ("Training", "Validation")],
)
def test_parts_by_other_names(tmp_path, warned, train, test):
    grey(tmp_path / train, "cat", "dog", n=3)
    grey(tmp_path / test, "cat", "dog", n=1)
    opened = [open_data(f"imagefolder:{tmp_path}", part) for part in ("train", "test")]
    assert [(len(data), data.classes) for data in opened] == [(6, ("cat", "dog")), (2, ("cat", "dog"))]
    assert f"{tmp_path / test} is taken as the test part" in warned()


@pytest.mark.parametrize(
    ("folders", "split", "says"),
    [
        (["images/train/cat", "images/test/cat"], "train", r"did you mean imagefolder:.*/images\?"),
        (["a/Train/cat", "b/Train/cat"], "train", r"did you mean imagefolder:.*/a or imagefolder:.*/b\?"),
        (["images/cat", "images/dog"], "train", r"one class only, images, .*\(cat, dog\).*did you mean"),
        (["train/images/cat", "train/images/dog"], "train", r"did you mean imagefolder:.*/train/images\?"),
        (["Train/cat", "Training/cat"], "train", "Train and Training may both be its train part"),
        (["train/cat", "Test/cat", "TEST/cat"], "test", "TEST and Test may both be its test part"),
        (["test/cat", "test/dog"], "train", "has .*/test but no train part"),
        (["Train/cat", "labels"], "train", r"Train holds folders .*labels beside it may be classes; did you mean"),
        (["train/cat"], "test", "neither .*/test nor .*/val exists"),
    ],
)
def test_layouts_in_doubt_are_refused(tmp_path, folders, split, says):
    grey(tmp_path, *folders)
    with pytest.raises(UserError, match=says):
        open_data(f"imagefolder:{tmp_path}", split)


def test_the_folder_above_is_named(tmp_path):
    grey(tmp_path, "Train/cat", "Test/cat")
    with pytest.raises(UserError, match=rf"did you mean imagefolder:{tmp_path}\?"):
        open_data(f"imagefolder:{tmp_path}/Train", "test")


def test_classes_may_be_called_like_parts(tmp_path):
    grey(tmp_path, "test", "training", "running")
    assert open_data(f"imagefolder:{tmp_path}", "train").classes == ("running", "test", "training")


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "__pycache__", "#recycle"])
def test_hidden_folders_are_no_classes(tmp_path, warned, name):
    grey(tmp_path, "cat", "dog", name, f"cat/{name}")
    Path(tmp_path / "dog" / "._0.png").write_bytes(b"a resource fork")
    data = open_data(f"imagefolder:{tmp_path}", "train")
    assert (data.classes, len(data)) == (("cat", "dog"), 4)
    assert f"passed over {name}" in warned()


def test_images_beside_the_classes_are_said(tmp_path, warned):
    grey(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "0.png").rename(tmp_path / "loose.png")
    assert len(open_data(f"imagefolder:{tmp_path}", "train")) == 3
    assert "1 images directly in" in warned()


@pytest.mark.parametrize(
    ("link", "target", "says"),
    [
        ("loop", ".", "loop is a link to .*, a folder that holds it"),
        ("cat/up", "..", "up is a link to .*, a folder that holds it"),
        ("cat/self", ".", "self is a link to .*, a folder that holds it"),
        ("kitten", "cat", "classes cat and kitten are one folder"),
        ("cat/a", "../dog", "b is a link to .*, a folder that holds it"),
    ],
)
def test_links_to_folders_that_hold_them(tmp_path, link, target, says):
    grey(tmp_path, "cat", "dog")
    (tmp_path / link).symlink_to(target)
    if target == "../dog":  # two that lead to one another
        (tmp_path / "dog" / "b").symlink_to("../cat")
    with pytest.raises(UserError, match=says):
        open_data(f"imagefolder:{tmp_path}", "train")


def test_links_to_elsewhere_are_followed(tmp_path):
    grey(tmp_path / "store", "one", "two")
    (tmp_path / "set").mkdir()
    for link, target in (("cat", "one"), ("dog", "two")):
        (tmp_path / "set" / link).symlink_to(tmp_path / "store" / target)
    assert len(open_data(f"imagefolder:{tmp_path}/set", "train")) == 4


# Damaged and gigantic files


def damaged_header(good: bytes) -> bytes:
    return good[:8] + (5).to_bytes(4, "big") + good[12:]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("zz.png", damaged_header, ""),
        ("zz.png", lambda good: good[: len(good) // 2], ""),
        ("zz.jpg", lambda good: good[:20], ""),
        ("zz.ppm", lambda good: b"P6 1x 16 255\n" + bytes(768), ""),
        ("zz.ppm", lambda good: b"P6 16 16 255\n" + bytes(9), ""),
        ("zz.ppm", lambda good: b"P6 99999 99999 255\n" + bytes(9), "99999 x 99999 pixels|gigantic"),
        ("zz.png", lambda good: b"", "it is empty"),
        ("zz.png", lambda good: b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("zz.png", lambda good: b"<!doctype html><html>", "web page"),
        ("zz.png", lambda good: b"PK\x03\x04" + bytes(40), "unpack it"),
        ("zz.png", lambda good: bytes(40), "no image that Pillow knows"),
    ],
)
@pytest.mark.parametrize("limited", [True, False])
def test_damaged_images_are_named(tmp_path, monkeypatch, name, content, says, limited):
    if not limited:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    grey(tmp_path, "cat", "dog")
    (tmp_path / "dog" / name).write_bytes(content((tmp_path / "dog" / "0.png").read_bytes()))
    with pytest.raises(UserError, match=rf"cannot read the image .*dog/zz\.\w+: .*({says})") as refused:
        load(f"imagefolder:{tmp_path}", "train")
    assert "\n" not in str(refused.value)


def test_other_things_named_like_images(tmp_path):
    grey(tmp_path, "cat", "dog")
    odd = tmp_path / "dog" / "zz.png"
    odd.mkdir()
    with pytest.raises(UserError, match=r"zz\.png: it is a folder"):
        load(f"imagefolder:{tmp_path}", "train")
    odd.rmdir()
    os.mkfifo(odd)
    with pytest.raises(UserError, match=r"zz\.png: it is no regular file"):
        load(f"imagefolder:{tmp_path}", "train")
    odd.unlink()
    odd.symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"zz\.png: there is no such file"):
        load(f"imagefolder:{tmp_path}", "train")
    streaming = StreamingLoader(open_folder(tmp_path, "train"), batch_size=5, num_workers=1)
    with pytest.raises(UserError, match=r"^cannot read the image .*zz\.png: there is no such file") as refused:
        list(streaming.epoch(0))
    assert "\n" not in str(refused.value)


def test_files_that_may_not_be_read(tmp_path, monkeypatch):
    def deny(path: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    grey(tmp_path, "cat", "dog")
    monkeypatch.setattr(image_file, "open", deny, raising=False)  # tests may run as root, who may read everything
    with pytest.raises(UserError, match=r"cat/0\.png: Permission denied"):
        load(f"imagefolder:{tmp_path}", "train")


def test_folders_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match="is too long for a path: 5000 bytes"):
        load(f"imagefolder:{'x' * 5000}", "train")
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="it is a file; give the folder"):
        load(f"imagefolder:{tmp_path}/images.zip", "train")
    grey(tmp_path / "set", "cat", "dog")
    (tmp_path / "set" / "eel").mkdir()
    with pytest.raises(UserError, match=r"no image of class eel in .*/eel; add images"):
        load(f"imagefolder:{tmp_path}/set", "train")


def test_a_class_of_one_image_is_named(tmp_path):
    grey(tmp_path, "cat", n=3)
    grey(tmp_path, "dog", n=1)
    with pytest.raises(UserError, match=r"class dog has one image only \(.*dog/0\.png\)"):
        split_validation(open_data(f"imagefolder:{tmp_path}", "train"))


# Files of the standard sets


def test_files_of_mnist_are_named(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sizes = {"train-images-idx3": 47040016, "train-labels-idx1": 60008, "t10k-images-idx3": 7840016}
    for name, size in (sizes | {"t10k-labels-idx1": 10008}).items():
        with open(raw / f"{name}-ubyte", "wb") as file:
            file.truncate(size)
    with pytest.raises(UserError, match=r"raw/train-images-idx3-ubyte is damaged: it is not the official file"):
        load("mnist", "train", root=tmp_path, download=False)
    (raw / "train-images-idx3-ubyte").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is a git-lfs pointer \(run `git lfs pull`\)"):
        load("mnist", "train", root=tmp_path, download=False)
    (raw / "train-images-idx3-ubyte").write_bytes(b"cut")
    with pytest.raises(UserError, match="train-images-idx3-ubyte is damaged: it has 3 bytes, not 47,040,016"):
        load("mnist", "train", root=tmp_path, download=False)


@pytest.mark.parametrize("content", [b"", b"damaged", b"\x80\x02cos\nputenv\n(U\x01aU\x01btR."])
def test_the_old_layout_of_mnist(tmp_path, content):
    old = tmp_path / "MNIST" / "processed"
    old.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        (old / name).write_bytes(content)
    with pytest.raises(UserError, match=r"processed/training\.pt, of torchvision's old layout, cannot be read; remove"):
        load("mnist", "train", root=tmp_path, download=False)


def test_a_sound_old_layout_of_mnist_is_read(tmp_path):
    old = tmp_path / "MNIST" / "processed"
    old.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(10, 28, 28, dtype=torch.uint8), torch.arange(10)), old / name)
    assert len(load("mnist", "train", root=tmp_path, download=False)) == 10


def test_files_of_cifar_are_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    with pytest.raises(UserError, match="cifar-10-batches-py/data_batch_1 is missing"):
        load("cifar10", "train", root=tmp_path, download=False)
    (folder / "data_batch_1").write_bytes(b"cut")
    with pytest.raises(UserError, match="cifar-10-batches-py/data_batch_1 is damaged: it is not the official file"):
        load("cifar10", "train", root=tmp_path, download=False)
    (tmp_path / "train_32x32.mat").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"train_32x32\.mat is damaged"):
        load("svhn", "train", root=tmp_path, download=False)
