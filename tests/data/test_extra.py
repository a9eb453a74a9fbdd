"""Extra images: what is read of the file and what is refused; batches that mix them in."""

import mmap
import os
import zipfile

import numpy as np
import pytest
import torch

from support.images import example, same
from uiat.data import Loader, as_float, loader_for, open_extra
from uiat.data.sampling import BatchPlan, crop_flip, draw
from uiat.errors import UserError
from uiat.system.distributed import Rank

SHAPE = (3, 9, 7)  # of `example`


def arrays(count=30, shape=(9, 7, 3), classes=5):
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return {"image": images, "label": np.arange(count) % classes}


def opened(path, *, save=np.savez, shape=SHAPE, labelled=True, **changed):
    given = arrays() | changed
    save(path / "extra.npz", **{key: value for key, value in given.items() if value is not None})
    return open_extra(path / "extra.npz", image_shape=shape, num_classes=5, labelled=labelled)


def base_of(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_is_read_as_numpy_reads_it(save, grey, order, tmp_path):
    images = np.asarray(arrays(shape=(9, 7) if grey else (9, 7, 3))["image"], order=order)
    extra = opened(tmp_path, save=save, shape=(1, 9, 7) if grey else SHAPE, image=images)
    index = torch.tensor([7, 0, 7, 29])
    expected = torch.from_numpy(images.reshape(30, 9, 7, -1)[index.numpy()]).permute(0, 3, 1, 2)
    assert torch.equal(extra.take(index), expected)
    assert extra.labels.tolist() == [i % 5 for i in range(30)]
    # One that is not compressed is mapped: nothing of it is in memory before it is asked for.
    assert isinstance(base_of(extra.images), mmap.mmap) == (save is np.savez)


def test_the_checksum_tells_files_apart_without_reading_them(tmp_path):
    sums = [opened(tmp_path, **changed).checksum for changed in ({}, {"label": np.zeros(30, np.int64)}, {})]
    sums.append(opened(tmp_path, save=np.savez_compressed).checksum)
    assert sums[0] == sums[2] == sums[3] != sums[1]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"image": None, "images": np.zeros(3)}, "has no array 'image', but 'label', 'images': numpy.savez"),
        ({"label": None}, r"has no array 'label' \(or set data.extra_labels to teacher\), but 'image'"),
        ({"image": arrays(shape=(8, 7, 3))["image"]}, r"images must be \(M, 9, 7, 3\).*not \(30, 8, 7, 3\)"),
        ({"image": arrays(shape=(3, 9, 7))["image"]}, r"images must be \(M, 9, 7, 3\).*not \(30, 3, 9, 7\)"),
        ({"image": arrays(shape=(9, 7))["image"]}, r"images must be \(M, 9, 7, 3\).*not \(30, 9, 7\)"),
        ({"image": arrays()["image"] / 255}, "images must be uint8, where 255 is white, not float64"),
        ({"image": arrays(0)["image"], "label": np.zeros(0, np.int64)}, "there is no image in it"),
        ({"label": np.arange(29)}, r"label must hold 30 whole numbers.*not int64 of shape \(29,\)"),
        ({"label": np.zeros(30)}, "label must hold 30 whole numbers.*not float64"),
        ({"label": np.arange(30)}, r"labels run from 0 to 29 but must lie in 0 .. 4 \(5 classes\)"),
        ({"label": np.full(30, -1)}, "labels run from -1 to -1 but must lie in 0 .. 4"),
        ({"label": np.array([None] * 30)}, "Object arrays cannot be loaded"),  # which would be unpickled
        ({"image": np.array([None] * 30)}, r"images must be \(M, 9, 7, 3\)"),
    ],
)
def test_what_is_no_set_of_extra_images_is_one_line(changed, says, tmp_path):
    with pytest.raises(UserError, match=says) as caught:
        opened(tmp_path, **changed)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "extra.npz") in str(caught.value)


@pytest.mark.parametrize(
    "kind", ["missing", "cut off", "text", "another zip", "a folder", "a pipe", "a member cut off"]
)
def test_a_file_that_is_no_npz_is_one_line(kind, tmp_path):
    path = tmp_path / "extra.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    path.unlink()
    if kind == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind in ("another zip", "a member cut off"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("image.npy", b"PNG" if kind == "another zip" else whole[35:300])
            archive.writestr("label.npy", b"")
    with pytest.raises(UserError) as caught:
        open_extra(path, image_shape=SHAPE, num_classes=5)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


# --- batches


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_a_batch_is_what_its_index_says(dtype, augment, tmp_path):
    data, extra = example(dtype=dtype), opened(tmp_path)
    loader = Loader(data, batch_size=8, augment=augment, seed=7, padding=2, extra=extra, extra_share=0.7)
    whole = list(loader.epoch(3))
    assert (len(whole), loader.num_examples) == (len(Loader(data, batch_size=8)), 80)
    pool = as_float(torch.from_numpy(extra.images.copy()).permute(0, 3, 1, 2))
    pool = torch.cat([as_float(data.images), pool])
    labels = torch.cat([data.labels, extra.labels])
    for step, batch in enumerate(whole):
        images = pool[batch.index]
        if augment != "none":
            images = crop_flip(images, draw(8, augment, padding=2, key=(7, 3, step)), padding=2)
        torch.testing.assert_close(batch.x, images, rtol=0, atol=1e-7)
        assert torch.equal(batch.y, labels[batch.index])
        assert (batch.index >= 50).sum() == 5  # 0.7 of 8, rounded down
    own = torch.cat([batch.index[batch.index < 50] for batch in whole])
    assert len(own.unique()) == len(own) == 18  # each at most once
    for start in (0, 2, 6):
        again = Loader(data, batch_size=8, augment=augment, seed=7, padding=2, extra=extra, extra_share=0.7)
        assert same(again.epoch(3, start=start), whole[start:])


def test_processes_share_a_batch_and_each_sees_both_kinds(tmp_path):
    data, extra = example(), opened(tmp_path)
    settings = {"batch_size": 16, "augment": "crop", "extra": extra, "extra_share": 0.5}
    whole = list(Loader(data, **settings).epoch(1))
    parts = [list(Loader(data, rank=Rank(i, 2), **settings).epoch(1)) for i in range(2)]
    for step, batch in enumerate(whole):
        for name in ("x", "y", "index"):
            assert torch.equal(torch.cat([getattr(part[step], name) for part in parts]), getattr(batch, name))
    kinds = torch.stack([part[step].index < 50 for part in parts for step in range(len(whole))])
    assert kinds.any(dim=1).all()
    assert (~kinds).any(dim=1).all()


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_streaming_gives_what_memory_gives(share, folder, tmp_path):
    extra = opened(tmp_path, shape=folder.image_shape, image=arrays(shape=(*folder.image_shape[1:], 3))["image"])
    options = {"batch_size": 6, "augment": "crop-flip", "seed": 3, "extra": extra, "extra_share": share}
    for rank in (Rank(), Rank(1, 3)):  # of three processes some have no image of the set in a batch
        streaming = loader_for(folder, memory_limit=100, num_workers=0, rank=rank, **options)
        memory = loader_for(folder, rank=rank, **options)
        assert streaming.num_examples == memory.num_examples == len(folder) + 30
        whole = list(memory.epoch(2))
        assert same(streaming.epoch(2), whole)
        assert same(streaming.epoch(2, start=1), whole[1:])


@pytest.mark.parametrize(("size", "share"), [(8, 0.1), (4, 0.2), (2, 0.4)])
def test_a_share_that_is_no_image_is_refused(size, share, tmp_path):
    with pytest.raises(UserError, match=rf"a share of {share} of a batch of {size} is 0 extra images; choose one"):
        Loader(example(), batch_size=size, extra=opened(tmp_path), extra_share=share)


def test_a_batch_of_more_extra_images_than_there_are_is_refused(tmp_path):
    with pytest.raises(UserError, match="is 40 extra images, but there are 30: choose a smaller share, or give more"):
        Loader(example(), batch_size=50, extra=opened(tmp_path), extra_share=0.8)


def test_images_without_labels_are_no_batch_yet(tmp_path):
    loader = Loader(example(), batch_size=8, extra=opened(tmp_path, labelled=False, label=None), extra_share=0.5)
    with pytest.raises(UserError, match="the extra images have no labels yet"):
        next(loader.epoch(0))


def test_draws_are_even_and_new_in_each_step():
    for extra in (100, 10_000):  # all of them in an order; some numbers of many
        plan = BatchPlan(1000, 100, seed=0, extra=extra, share=0.5)
        drawn = torch.stack([p[p >= 1000] for p in (plan.positions(e, s) for e in range(20) for s in range(10))]) - 1000
        assert drawn.shape == (200, 50)
        assert all(len(row.unique()) == 50 for row in drawn)  # none twice in a batch
        counts = (drawn.flatten() * 10 // extra).bincount(minlength=10)
        assert (counts - 1000).abs().max() < 5 * 1000**0.5
        assert len(drawn.sort(dim=1).values.unique(dim=0)) == 200
