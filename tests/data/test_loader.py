"""Batches in memory: their contents, which depend on (seed, epoch, step) alone."""

import pytest
import torch

from support.images import example, same
from uiat.data import Folder, Loader, StreamingLoader, as_float, load
from uiat.data.sampling import crop_flip, draw
from uiat.errors import UserError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


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
            images = crop_flip(images, draw(8, augment, padding=2, key=(7, 3, step)), padding=2)
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
        ({"seed": -1}, "seed must be at least 0"),
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
