"""Loaders: what is in a batch, that it depends on (seed, epoch, step) alone, and that streaming gives the same."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uiat.data import (
    Folder,
    ImageSet,
    Loader,
    StreamingLoader,
    as_float,
    from_tensors,
    load,
    loader_for,
    open_data,
    open_folder,
    split_validation,
    statistics,
)
from uiat.data.sampling import crop_flip, draw, generator
from uiat.errors import UserError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def example(n: int = 50, dtype: torch.dtype = torch.uint8) -> ImageSet:
    x = torch.randint(1, 256, (n, 3, 9, 7), dtype=torch.uint8)
    return from_tensors(x if dtype == torch.uint8 else as_float(x), torch.arange(n) % 5)


def same(a, b) -> bool:
    """Whether two lists of batches are bit-identical."""
    pairs = zip(a, b, strict=True)
    return all(torch.equal(getattr(p, f), getattr(q, f)) for p, q in pairs for f in ("x", "y", "index"))


def one_by_one(images: torch.Tensor, choice: torch.Tensor, padding: int) -> torch.Tensor:
    """The crop and flip, an image at a time and a pixel at a time: slow and plain."""
    result = torch.zeros_like(images)
    _, _, h, w = images.shape
    for i, (down, right, mirror) in enumerate(choice.t().tolist()):
        for row in range(h):
            for column in range(w):
                r, c = row + down - padding, (w - 1 - column if mirror else column) + right - padding
                if 0 <= r < h and 0 <= c < w:
                    result[i, :, row, column] = images[i, :, r, c]
    return result


# --- augmentation


@given(
    shape=st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(2, 6), st.integers(2, 6)),
    padding=st.integers(0, 4),
    augment=st.sampled_from(["crop", "crop-flip"]),
    seed=st.integers(0, 1000),
    uint8=st.booleans(),
)
def test_crop_and_flip_are_those_of_one_image_at_a_time(shape, padding, augment, seed, uint8):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))
    images = images if uint8 else as_float(images)
    choice = draw(shape[0], augment, padding=padding, key=(seed, 0, 0))
    assert torch.equal(crop_flip(images, choice, padding=padding), one_by_one(images, choice, padding))


def test_draws_cover_every_crop_evenly():
    choice = draw(81 * 200, "crop-flip", padding=4, key=(0, 0, 0))
    counts = torch.bincount(choice[0] * 9 + choice[1], minlength=81)
    assert len(counts) == 81
    assert 130 < counts.min() <= counts.max() < 280
    assert 0.48 < choice[2].double().mean() < 0.52
    assert not draw(100, "crop", padding=4, key=(0, 0, 0))[2].any()


def test_keys_give_unrelated_streams():
    keys = [(), (0,), (1,), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (2**40, 1)]
    drawn = {tuple(torch.randint(0, 2**30, (3,), generator=generator(*key)).tolist()) for key in keys}
    assert len(drawn) == len(keys)


def test_augmentation_is_fast():
    data = from_tensors(torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8), torch.arange(2000) % 10)
    loader = Loader(data, batch_size=128, augment="crop-flip")
    seconds = []
    for epoch in range(3):
        batches = loader.epoch(epoch)
        for _ in range(len(loader)):
            before = time.perf_counter()
            next(batches)
            seconds.append(time.perf_counter() - before)
    assert min(seconds) < 0.010, "about 1 ms on a laptop core; ten times that is a loop over images"


# --- the loader in memory


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
def test_a_batch_is_what_its_index_says(device, dtype, augment):
    data = example(dtype=dtype)
    loader = Loader(data, batch_size=8, augment=augment, device=device, seed=7, padding=2)
    for step, batch in enumerate(loader.epoch(3)):
        index = batch.index.cpu()
        images = data.images[index]
        if augment != "none":
            images = one_by_one(images, draw(8, augment, padding=2, key=(7, 3, step)), 2)
        assert (batch.x.dtype, batch.y.dtype, batch.index.dtype) == (torch.float32, torch.int64, torch.int64)
        assert batch.x.is_contiguous()
        assert batch.x.device.type == device
        torch.testing.assert_close(batch.x.cpu(), as_float(images), rtol=0, atol=0 if device == "cpu" else 1e-7)
        assert torch.equal(batch.y.cpu(), data.labels[index])


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_an_epoch_can_be_entered_anywhere(augment, drop_last):
    data = example()
    loader = Loader(data, batch_size=8, augment=augment, seed=1, drop_last=drop_last)
    whole = list(loader.epoch(2))
    assert len(whole) == len(loader) == (6 if drop_last else 7)
    for start in range(len(loader) + 1):
        again = Loader(data, batch_size=8, augment=augment, seed=1, drop_last=drop_last)
        assert same(again.epoch(2, start=start), whole[start:])


def test_an_epoch_visits_everything_once_in_an_order_of_its_own():
    loader = Loader(example(), batch_size=8, drop_last=False)
    orders = [torch.cat([batch.index for batch in loader.epoch(epoch)]) for epoch in (0, 1, 0)]
    assert orders[0].sort().values.tolist() == list(range(50))
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    other = Loader(example(), batch_size=8, drop_last=False, seed=1)
    assert not torch.equal(torch.cat([batch.index for batch in other.epoch(0)]), orders[0])


def test_without_shuffling_the_order_is_the_set_s():
    data = example()
    batches = list(Loader(data, batch_size=20, shuffle=False, drop_last=False).epoch(5))
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(50))
    assert torch.equal(torch.cat([batch.x for batch in batches]), as_float(data.images))


def test_the_global_generator_is_neither_used_nor_moved():
    data = example()
    loader = Loader(data, batch_size=8, augment="crop-flip")
    before = torch.get_rng_state()
    first = list(loader.epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same(first, loader.epoch(0))


def test_a_batch_is_the_caller_s_own():
    data = example(dtype=torch.float32)
    loader = Loader(data, batch_size=50, shuffle=False)
    next(loader.epoch(0)).x.zero_()
    assert torch.equal(next(loader.epoch(0)).x, data.images)


def test_channels_last():
    data = example()
    plain, last = (Loader(data, batch_size=8, augment="crop", channels_last=c) for c in (False, True))
    assert same(plain.epoch(0), last.epoch(0))
    assert next(last.epoch(0)).x.is_contiguous(memory_format=torch.channels_last)


def test_the_loader_says_what_training_asks():
    loader = Loader(load("digits", "train"), batch_size=100)
    assert (loader.num_classes, loader.image_shape, loader.num_examples, len(loader)) == (10, (1, 8, 8), 1258, 12)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 13}, "batch size 13 is larger than the set of 12"),
        ({"batch_size": 0}, "at least 1"),
        ({"augment": "flip-crop"}, "unknown augmentation 'flip-crop'; did you mean 'crop'"),
        ({"seed": -1}, "must not be negative"),
        ({"padding": -1}, "must not be negative"),
    ],
)
def test_what_no_loader_can_serve(arguments, says, streaming):
    files = Folder(("a.png",) * 12, torch.zeros(12, dtype=torch.int64), ("a",), "files", (3, 8, 8), 8)
    arguments = {"batch_size": 8} | arguments
    with pytest.raises(UserError, match=says):
        StreamingLoader(files, **arguments) if streaming else Loader(example(12), **arguments)


@pytest.mark.parametrize("start", [-1, 7])
def test_a_start_outside_the_epoch_is_refused_at_once(start):
    with pytest.raises(UserError, match=f"cannot start at step {start} of an epoch of 6"):
        Loader(example(), batch_size=8).epoch(0, start=start)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_does_not_wait_for_the_device():
    loader = Loader(example(), batch_size=8, augment="crop-flip", device="cuda")
    list(loader.epoch(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(loader.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- image folders


def write_images(where, classes, n, size=(12, 10)):
    """n PNGs a class of random pixels."""
    from PIL import Image

    for name in classes:
        (where / name).mkdir(parents=True)
        for i in range(n):
            pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(where / name / f"{i}.png")


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("torchvision")
    write_images(tmp_path / "train", ("cat", "dog", "eel"), 4)
    write_images(tmp_path / "val", ("cat", "dog", "eel"), 2)
    return tmp_path


@pytest.fixture
def folder(root) -> Folder:
    return open_folder(root, "train", image_size=8)


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


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("drop_last", [True, False])
def test_streaming_gives_what_memory_gives(folder, workers, drop_last):
    options = {"batch_size": 5, "augment": "crop-flip", "seed": 3, "drop_last": drop_last, "padding": 2}
    streaming = loader_for(folder, memory_limit=100, num_workers=workers, **options)
    memory = loader_for(folder, **options)
    assert (type(streaming), type(memory)) == (StreamingLoader, Loader)
    for name in ("num_classes", "image_shape", "num_examples"):
        assert getattr(streaming, name) == getattr(memory, name)
    assert len(streaming) == len(memory)
    before = torch.get_rng_state()
    whole = list(streaming.epoch(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(whole, memory.epoch(2))
    assert same(streaming.epoch(2, start=1), whole[1:])
    with pytest.raises(UserError, match="cannot start"):
        streaming.epoch(0, start=9)


def test_the_number_of_workers(folder):
    assert 1 <= StreamingLoader(folder, batch_size=2).num_workers <= 8
    with pytest.raises(UserError, match="number of workers must not be negative"):
        StreamingLoader(folder, batch_size=2, num_workers=-1)


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
