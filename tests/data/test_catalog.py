"""The data sets known by name: their rows, their readers, and their statistics."""

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

from support.images import example
from support.paths import SRC
from uiat import data as uidata
from uiat.data import NAMES, STATS, ImageSet, from_tensors, load
from uiat.data.catalog import DATA_SETS
from uiat.data.standard_files import find_damage
from uiat.errors import UserError
from uiat.threat import parse


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


def test_digits_are_split_once_for_all():
    from sklearn.datasets import load_digits

    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test)) == (1258, 539)
    assert torch.equal(test.images, load("digits", "test").images)
    share = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert torch.all((share - 0.3).abs() < 0.01)
    both = torch.cat([train.images, test.images]).flatten(1).mul(16).unique(dim=0)
    assert both.equal(torch.from_numpy(load_digits().data).float().unique(dim=0))  # disjoint, and together the whole


def test_digits_are_the_same_where_their_file_is_not_found(monkeypatch):
    read = [load("digits", split) for split in ("train", "test")]
    monkeypatch.setattr("uiat.data.catalog.importlib.util.find_spec", lambda _: None)
    for mine, split in zip(read, ("train", "test"), strict=True):
        other = load("digits", split)
        assert torch.equal(mine.images, other.images)
        assert torch.equal(mine.labels, other.labels)


def test_neither_torchvision_nor_scikit_learn_is_imported_for_digits():
    code = (
        "import sys, uiat.data; assert 'torchvision' not in sys.modules; uiat.data.tensors('digits', 'train'); "
        "list(uiat.data.Loader(uiat.data.load('digits', 'test'), batch_size=64, augment='crop').epoch(0)); "
        "assert not {'torchvision', 'sklearn'} & set(sys.modules)"
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
    with pytest.raises(UserError, match=r"cifar10 needs torchvision, .*: pip install .uiat\[data\]"):
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_real_mnist(real_root, offline):
    train, test = (load("mnist", split, root=real_root) for split in ("train", "test"))
    assert not offline
    row = DATA_SETS["mnist"]
    assert (len(train), len(test)) == (row.train, row.test)
    assert train.image_shape == test.image_shape == row.image_shape
    assert train.classes == tuple("0123456789")
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert_known(train)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "/proc/self/pagemap"])
def test_a_file_of_a_set_that_has_no_end_is_named(tmp_path, target):
    official = type("Official", (), {"base_folder": "", "train_list": [("batch", "0")], "test_list": []})
    if target == "pipe":
        os.mkfifo(tmp_path / "batch")
    elif Path(target).exists():
        (tmp_path / "batch").symlink_to(target)
    else:
        pytest.skip(f"there is no {target}")
    official.meta = {"filename": "names", "md5": ""}
    found = find_damage(official, tmp_path, "train")
    assert found.startswith(f"{tmp_path / 'batch'} cannot be read: it ")


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
    data = example(500)
    x = uidata.as_float(data.images)
    mean, std = uidata.statistics(data)
    torch.testing.assert_close(torch.tensor(mean), x.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std), x.std((0, 2, 3), correction=0))
    assert uidata.statistics(from_tensors(torch.full((2, 1, 8, 8), 0.5), [0, 0]))[1] == (1 / 255,)
