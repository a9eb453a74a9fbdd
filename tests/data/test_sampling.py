"""Random crops and flips: those of one image at a time, from streams that a key decides."""

import time

import torch
from hypothesis import given
from hypothesis import strategies as st

from uiat.data import Loader, as_float, from_tensors
from uiat.data.sampling import crop_flip, draw, generator, move, move_back


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
            before = time.process_time()
            next(batches)
            seconds.append(time.process_time() - before)
    assert min(seconds) < 0.010, "about 1 ms on a laptop core; ten times that is a loop over images"


def test_what_lies_on_an_image_moves_with_it_and_back_pixel_by_pixel():
    """By loops over pixels: `move` is the augmentation's own way, `move_back` undoes it and leaves what was cut off."""
    padding, values, before = 2, torch.arange(1, 121).view(5, 2, 3, 4), -torch.arange(1, 121).view(5, 2, 3, 4)
    choice = draw(5, "crop-flip", padding=padding, key=(3,))
    choice[:, 0] = torch.tensor([0, 4, 1])
    moves = torch.cat([choice[:2] - padding, choice[2:]])
    moved = move(values, moves)
    assert torch.equal(moved, crop_flip(values, choice, padding=padding))
    expected = before.clone()
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in values.shape)).tolist():
        down, right, mirror = moves[:, b].tolist()
        u, v = i + down, (3 - j if mirror else j) + right
        if 0 <= u < 3 and 0 <= v < 4:
            expected[b, c, u, v] = 1000 + moved[b, c, i, j]
            assert moved[b, c, i, j] == values[b, c, u, v]
        else:
            assert moved[b, c, i, j] == 0
    assert torch.equal(move_back(1000 + moved, moves, before=before), expected)
    assert (expected < 0).any()
