"""Sets: their checks, the readers by name, splits and statistics."""

import hashlib
import os
import pickle
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

from support.paths import SRC
from uiat import data as uidata
from uiat.data import NAMES, STATS, ImageSet, from_dataset, from_tensors, load, split_validation, stratified_subset
from uiat.data.catalog import DATA_SETS
from uiat.errors import UserError
from uiat.threat import parse

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def images(n: int = 6, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.rand(n, 3, 8, 8)
    return (x * 255).to(torch.uint8) if dtype == torch.uint8 else x


def changed(x: torch.Tensor, value: float) -> torch.Tensor:
    x = x.clone()
    x[1, 0, 2, 3] = value
    return x


@pytest.fixture(scope="session")
def real_root(shared_data, tmp_path_factory):
    """CIFAR-10 and MNIST as torchvision wants them, unpacked once a session."""
    pytest.importorskip("torchvision")
    root = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, str(shared_data / "unpack.py"), str(root)], check=True, capture_output=True)
    return root


@pytest.fixture
def offline(monkeypatch):
    """Every download of torchvision fails as it does without a network; yields the list of what was tried."""
    torchvision = pytest.importorskip("torchvision")
    tried = []

    def fail(url, *args, **kwargs):
        tried.append(url)
        raise urllib.error.URLError("no network")

    for module in ("cifar", "mnist"):
        monkeypatch.setattr(getattr(torchvision.datasets, module), "download_and_extract_archive", fail)
    monkeypatch.setattr(torchvision.datasets.svhn, "download_url", fail)
    return tried


# --- sets and their checks


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_good_set(dtype):
    data = ImageSet(images(dtype=dtype), LABELS, ("a", "b", "c"), "good")
    assert (len(data), data.num_classes, data.image_shape) == (6, 3, (3, 8, 8))
    part = data.subset([4, 0])
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.images, data.images[[4, 0]])
    assert part.classes == data.classes
    assert data.decode() is data


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (torch.rand(6, 8, 8), LABELS, "must have shape"),
        (torch.rand(0, 3, 8, 8), LABELS[:0], "empty"),
        (torch.rand(6, 3, 0, 8), LABELS, "empty"),
        (torch.rand(6, 3, 8, 8).double(), LABELS, "uint8 or float32"),
        (torch.ones(6, 3, 8, 8).int(), LABELS, "uint8 or float32"),
        (changed(torch.rand(6, 3, 8, 8), float("nan")), LABELS, "NaN"),
        (changed(torch.rand(6, 3, 8, 8), float("inf")), LABELS, "up to inf"),
        (changed(torch.rand(6, 3, 8, 8), 255.0), LABELS, "divide by 255"),
        (changed(torch.rand(6, 3, 8, 8), 1.2), LABELS, "scale them"),
        (changed(torch.rand(6, 3, 8, 8), -1.0), LABELS, "leave normalisation out"),
        (torch.rand(6, 3, 8, 8), LABELS[:5], r"shape \(6,\)"),
        (torch.rand(6, 3, 8, 8), LABELS[:, None], r"shape \(6,\)"),
        (torch.rand(6, 3, 8, 8), LABELS.int(), "int64"),
        (torch.rand(6, 3, 8, 8), LABELS.float(), "int64"),
        (torch.rand(6, 3, 8, 8), LABELS + 1, r"from 1 to 3 but must lie in 0 \.\. 2"),
        (torch.rand(6, 3, 8, 8), LABELS - 1, "from -1 to 1"),
        (torch.rand(6, 3, 8, 8), torch.tensor([0, 0, 0, 2, 2, 2]), "no image of class 'b'"),
    ],
)
def test_a_bad_set_is_refused(x, y, says):
    with pytest.raises(UserError, match=says):
        ImageSet(x, y, ("a", "b", "c"), "bad")


def test_rounding_is_forgiven():
    ImageSet(changed(images(), 1 + 1e-7), LABELS, ("a", "b", "c"), "rounded")


def test_many_absent_classes_are_counted():
    with pytest.raises(UserError, match="and 2 more"):
        from_tensors(images(), torch.zeros(6, dtype=torch.int64), num_classes=8)


def test_a_part_may_lack_a_class():
    assert from_tensors(images(), LABELS).subset(torch.tensor([0])).num_classes == 3


def test_from_tensors():
    data = from_tensors(images().double().numpy(), LABELS.int().numpy(), name="mine")
    assert (data.images.dtype, data.labels.dtype, data.name) == (torch.float32, torch.int64, "mine")
    assert from_tensors(images(dtype=torch.uint8), LABELS.tolist()).images.dtype == torch.uint8
    with pytest.raises(UserError, match="int64"):
        from_tensors(images(), LABELS.float())
    with pytest.raises(UserError, match="must lie in 0"):
        from_tensors(images(), LABELS, num_classes=2)
    with pytest.raises(UserError, match="empty"):
        from_tensors(images(0), LABELS[:0])


class Listed:
    """A map-style dataset of what it is given."""

    def __init__(self, items, classes=None):
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_from_dataset_reads_every_kind_of_image():
    Image = pytest.importorskip("PIL.Image")
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    expected = torch.from_numpy(rgb).permute(0, 3, 1, 2)
    for convert in (Image.fromarray, lambda a: a, lambda a: torch.from_numpy(a).permute(2, 0, 1)):
        data = from_dataset(Listed([(convert(a), i % 3) for i, a in enumerate(rgb)], ["x", "y", "z"]))
        assert torch.equal(data.images, expected)
        assert data.classes == ("x", "y", "z")
    grey = from_dataset(Listed([(Image.fromarray(a[..., 0]), torch.tensor(i % 3)) for i, a in enumerate(rgb)]))
    assert grey.image_shape == (1, 8, 8)
    assert grey.labels.tolist() == LABELS.tolist()
    palette = from_dataset(Listed([(Image.fromarray(a).convert("P"), np.int64(i % 3)) for i, a in enumerate(rgb)]))
    assert palette.image_shape == (3, 8, 8)
    floats = from_dataset(Listed([(a / 255.0, np.array([i % 3])) for i, a in enumerate(rgb)]), num_classes=3)
    assert torch.equal(floats.images, (expected.double() / 255).float())


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (Listed([]), "empty"),
        (Listed([images(1)[0]]), "must be a pair"),
        (Listed([(images(1)[0], 0), (torch.rand(3, 9, 8), 0)]), "image 1 has shape"),
        (Listed([("cat.png", 0)]), "cannot read an image of type str"),
        (Listed([(images(1)[0], 0.5)]), "label 0 must be an integer"),
        (Listed([(images(1)[0], torch.tensor([0, 1]))]), "label 0 must be an integer"),
        (Listed([(images(1)[0] * 255, 0)]), "divide by 255"),
        (iter([(images(1)[0], 0)]), "must have a length"),
    ],
)
def test_from_dataset_refuses(dataset, says):
    with pytest.raises(UserError, match=says):
        from_dataset(dataset)


# --- readers


def test_digits_are_split_once_for_all():
    from sklearn.datasets import load_digits

    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test)) == (1258, 539)
    assert torch.equal(test.images, load("digits", "test").images)
    share = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert torch.all((share - 0.3).abs() < 0.01)
    both = torch.cat([train.images, test.images]).flatten(1).mul(16).unique(dim=0)
    assert both.shape == torch.from_numpy(load_digits().data).unique(dim=0).shape  # disjoint, and together the whole


def test_torchvision_is_not_imported_for_digits():
    code = (
        "import sys, uiat.data; assert 'torchvision' not in sys.modules; uiat.data.tensors('digits', 'train'); "
        "list(uiat.data.Loader(uiat.data.load('digits', 'test'), batch_size=64, augment='crop').epoch(0)); "
        "assert 'torchvision' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_that_do_not_exist():
    with pytest.raises(UserError, match="did you mean 'cifar100' or 'cifar10'"):
        load("cifar1000", "train")
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        load("digits", "tset")
    with pytest.raises(UserError, match="unknown data set 'imagefolder:'"):
        load("imagefolder:", "train")
    with pytest.raises(UserError, match="images of one size"):
        load("digits", "train", image_size=16)


def test_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match=r"cifar10 needs torchvision.*pip install torchvision"):
        load("cifar10", "train")


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("UIAT_DATA", str(tmp_path))
    assert uidata.default_root() == tmp_path
    monkeypatch.delenv("UIAT_DATA")
    assert uidata.default_root() == Path.home() / ".cache" / "uiat" / "data"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "t10k-labels-idx1-ubyte in MNIST/raw/"),
        ("fashion-mnist", "FashionMNIST/raw/"),
        ("cifar10", "cifar-10-batches-py/"),
        ("cifar100", "cifar-100-python/"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_no_files_and_no_network(name, file, tmp_path, offline):
    with pytest.raises(UserError, match=f"put .*{file}.*allow the download") as refused:
        load(name, "train", root=tmp_path, download=False)
    assert str(tmp_path) in str(refused.value)
    assert not offline
    with pytest.raises(UserError, match=f"put .*{file}.*the download failed") as refused:
        load(name, "test", root=tmp_path)
    assert "\n" not in str(refused.value)
    assert offline


def test_real_cifar10(real_root, offline):
    train, test = (load("cifar10", split, root=real_root) for split in ("train", "test"))
    assert not offline, "files that are there must not be fetched"
    assert (train.images.shape, train.images.dtype) == ((50000, 3, 32, 32), torch.uint8)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert test.classes[:2] == ("airplane", "automobile")
    # The official first test image, a cat, begins with this row of red.
    assert (test.labels[0], test.images[0, 0, 0, :4].tolist()) == (3, [158, 159, 165, 166])
    assert train.images.untyped_storage().nbytes() == train.images.numel(), "one tensor, not a view of a larger one"
    assert_known(train)
    x, y = uidata.tensors("cifar10", "test", real_root)
    assert torch.equal((x * 255).round().byte(), test.images)
    assert torch.equal(y, test.labels)


def test_real_mnist(real_root, offline):
    train, test = (load("mnist", split, root=real_root) for split in ("train", "test"))
    assert not offline
    row = DATA_SETS["mnist"]
    assert (len(train), len(test)) == (row.train, row.test)
    assert train.image_shape == test.image_shape == row.image_shape
    assert train.classes == tuple("0123456789")
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert_known(train)


def test_mnist_in_part_or_damaged(real_root, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (real_root / "MNIST" / "raw").iterdir():
        (raw / file.name).symlink_to(file)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"mnist is missing or damaged .*t10k-labels-idx1-ubyte"):
        load("mnist", "train", root=tmp_path, download=False)
    (raw / "t10k-labels-idx1-ubyte").write_bytes((real_root / "MNIST/raw/t10k-labels-idx1-ubyte").read_bytes()[:5000])
    assert len(load("mnist", "train", root=tmp_path, download=False)) == 60000
    with pytest.raises(UserError, match="mnist is missing or damaged"):
        load("mnist", "test", root=tmp_path, download=False)


def test_a_changed_cifar_file_is_not_unpickled(real_root, tmp_path, monkeypatch, offline):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in (real_root / "cifar-10-batches-py").iterdir():
        (folder / file.name).symlink_to(file)
    ran = []
    monkeypatch.setattr(os, "putenv", lambda *args: ran.append(args))
    for name in ("data_batch_5", "batches.meta"):
        (folder / name).unlink()
        (folder / name).write_bytes(b"\x80\x02cos\nputenv\n(U\x01aU\x01btR.")
        with pytest.raises(UserError, match="cifar10 is missing or damaged"):
            load("cifar10", "train", root=tmp_path)
        assert not ran
        pickle.loads((folder / name).read_bytes())  # noqa: S301 -- the bomb would have gone off
        assert ran.pop()
        (folder / name).unlink()
        (folder / name).symlink_to(real_root / "cifar-10-batches-py" / name)


def svhn_sample(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    file = shared_data / "svhn_sample" / "svhn_train_first55.npz"
    if not file.is_file():
        pytest.skip(f"needs {file.name}")
    with np.load(file) as arrays:
        x, y = arrays["X"], arrays["y_by_eye"]
    return x[y >= 0], y[y >= 0]  # -1 marks what could not be read by eye


def test_svhn_reads_the_official_format(shared_data, tmp_path, monkeypatch):
    import scipy.io

    torchvision = pytest.importorskip("torchvision")
    x, y = svhn_sample(shared_data)
    file = tmp_path / "train_32x32.mat"
    scipy.io.savemat(file, {"X": x.transpose(1, 2, 3, 0), "y": np.where(y == 0, 10, y)[:, None].astype(np.uint8)})
    with pytest.raises(UserError, match="svhn is missing or damaged"):  # not the official file: refused
        load("svhn", "train", root=tmp_path, download=False)
    url, name, _ = torchvision.datasets.SVHN.split_list["train"]
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(torchvision.datasets.SVHN.split_list, "train", [url, name, md5])
    data = load("svhn", "train", root=tmp_path, download=False)
    assert torch.equal(data.images, torch.from_numpy(x).permute(0, 3, 1, 2))
    assert data.images.is_contiguous()
    assert data.labels.tolist() == y.tolist()
    assert data.classes == tuple("0123456789")


# --- splits and statistics


def uneven(counts: list[int]) -> ImageSet:
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])[torch.randperm(sum(counts))]
    pixels = torch.arange(len(labels)).view(-1, 1, 1, 1).div(len(labels)).expand(-1, 1, 2, 2).contiguous()
    return from_tensors(pixels, labels)


@pytest.mark.parametrize("size", [None, 4, 50, 131])
def test_validation_is_stratified_disjoint_and_seeded(size):
    data = uneven([300, 100, 30, 5])
    train, validation, index = split_validation(data, size=size, seed=3)
    expected = size or 435 // 20
    assert (len(validation), len(train)) == (expected, 435 - expected)
    assert torch.equal(train.images, data.images[index])
    assert torch.equal(train.labels, data.labels[index])
    held = torch.bincount(validation.labels, minlength=4)
    exact = torch.tensor([300, 100, 30, 5]) * expected / 435
    assert torch.all((held - exact.clamp(min=1)).abs() <= 2)
    assert held.min() >= 1
    assert torch.bincount(train.labels, minlength=4).min() >= 1
    everything = torch.cat([train.images, validation.images]).flatten(1)[:, 0].sort().values
    assert torch.equal(everything, data.images.flatten(1)[:, 0])
    assert torch.equal(split_validation(data, size=size, seed=3)[2], index)
    assert not torch.equal(split_validation(data, size=size, seed=4)[2], index)


def test_default_validation_size():
    assert len(split_validation(uneven([15000, 15000]))[1]) == 1000
    assert len(split_validation(uneven([2] * 10))[1]) == 10


def test_validation_is_refused():
    with pytest.raises(UserError, match="class 1 has one image only"):
        split_validation(uneven([5, 1]))
    for size in (1, 9, 0, -1):
        with pytest.raises(UserError, match=r"choose 2 \.\. 8"):
            split_validation(uneven([5, 5]), size=size)


def test_stratified_subset():
    data = uneven([50, 30, 20])
    part = stratified_subset(data, 10, seed=1)
    assert torch.bincount(part.labels).tolist() == [5, 3, 2]
    assert torch.equal(part.images, stratified_subset(data, 10, seed=1).images)
    assert not torch.equal(part.images, stratified_subset(data, 10, seed=2).images)
    assert torch.equal(stratified_subset(data, 100).images, data.images)
    assert len(stratified_subset(part, 5)) == 5
    for n in (2, 101):
        with pytest.raises(UserError, match=r"choose 3 \.\. 100"):
            stratified_subset(data, n)


def test_a_split_leaves_the_global_generator_alone():
    data, before = uneven([50, 50]), torch.get_rng_state()
    split_validation(data)
    uidata.statistics(data)
    assert torch.equal(torch.get_rng_state(), before)


def assert_known(data: ImageSet) -> None:
    torch.testing.assert_close(uidata.statistics(data), uidata.STATS[data.name], atol=4e-3, rtol=0)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_row_of_the_catalog_agrees_with_itself(name):
    row = DATA_SETS[name]
    channels = row.image_shape[0]
    assert len(row.mean) == len(row.std) == (channels if row.reader is not None else 0)
    assert all(0 < value < 1 for value in (*row.mean, *row.std))
    assert row.train > row.test > row.classes
    assert [parse(text).norm for text in row.threats] in ([], ["Linf", "L2", "L1"])
    assert (name in NAMES, name in STATS) == (row.reader is not None, bool(row.mean))


def test_a_row_of_the_catalog_is_what_the_files_hold():
    row = DATA_SETS["digits"]
    for split, count in (("train", row.train), ("test", row.test)):
        data = load("digits", split)
        assert (len(data), data.image_shape, data.num_classes) == (count, row.image_shape, row.classes)


def test_statistics():
    assert_known(load("digits", "train"))
    data = from_tensors(images(500, torch.uint8), torch.zeros(500, dtype=torch.int64))
    x = uidata.as_float(data.images)
    mean, std = uidata.statistics(data)
    torch.testing.assert_close(torch.tensor(mean), x.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std), x.std((0, 2, 3), correction=0))
    assert uidata.statistics(from_tensors(torch.full((2, 1, 8, 8), 0.5), [0, 0]))[1] == (1 / 255,)
