"""Augmentation: the pixels of torchvision, shares that add up, numbers from seed, epoch and step alone."""

from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional

import uiat
from support.images import example, same
from uiat.data import Augmentation, Folder, Loader, loader_for
from uiat.data.augmentation import Boxes, draw_boxes, erase_boxes, mix_pairs, resize_boxes
from uiat.data.sampling import generator
from uiat.errors import UserError
from uiat.system.distributed import Rank
from uiat.training.setup import check_plan

EVERYTHING = Augmentation(
    crop="resized-crop-flip", randaugment=2, randaugment_magnitude=20, erasing=0.5, mixup=0.8, cutmix=1.0
)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resized_crops_are_those_of_torchvision(dtype):
    images = example(dtype=dtype).images[:6]
    h, w = images.shape[2:]
    boxes = draw_boxes(6, h, w, area=(0.08, 1.0), ratios=(0.75, 1.33), random=generator(3))
    mirror = torch.arange(6) % 2 == 0
    crops = resize_boxes(images, boxes, mirror=mirror)
    for i, (top, left, height, width) in enumerate(torch.stack(boxes, dim=1).tolist()):
        expected = functional.resized_crop(images[i], top, left, height, width, [h, w], antialias=True)
        expected = functional.horizontal_flip(expected) if mirror[i] else expected
        atol = 1 if dtype == torch.uint8 else 1e-5  # a half is rounded to either side
        torch.testing.assert_close(crops[i].float(), expected.float(), rtol=0, atol=atol)


def test_boxes_have_the_areas_and_ratios_that_were_asked():
    boxes = draw_boxes(4000, 64, 64, area=(0.1, 0.5), ratios=(0.5, 2.0), random=generator(0))
    area, ratio = boxes.height * boxes.width / 64**2, (boxes.width / boxes.height).log()
    assert 0.09 < area.min() < 0.11
    assert 0.48 < area.max() < 0.52
    assert area.mean().item() == pytest.approx(0.3, abs=0.01)
    assert ratio.mean().item() == pytest.approx(0.0, abs=0.03)
    assert int((boxes.top + boxes.height).max()) == int((boxes.left + boxes.width).max()) == 64
    assert int(boxes.top.min()) == int(boxes.left.min()) == 0
    whole = draw_boxes(3, 4, 64, area=(1.0, 1.0), ratios=(1.0, 1.0), random=generator(0))
    assert (whole.height.tolist(), whole.width.tolist()) == ([4] * 3, [64] * 3)  # no box fits


def test_erasing_paints_the_box_alone():
    x = torch.rand(2, 3, 8, 8)
    boxes = Boxes(*(torch.tensor(v) for v in ([2, 0], [3, 0], [4, 0], [5, 5])))
    erased = erase_boxes(x, boxes)
    assert torch.equal(erased[1], x[1])  # a box of height 0
    value = x[0].mean(dim=(1, 2), keepdim=True).expand(3, 4, 5)
    torch.testing.assert_close(functional.erase(x[0], 2, 3, 4, 5, value), erased[0])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_have_the_shares_of_the_pixels(kind):
    """Of images that are 0 and 1 everywhere, the mean of the mixed one is the share of the second."""
    x, y = torch.arange(4).remainder(2).float().view(4, 1, 1, 1).expand(4, 1, 16, 16), torch.tensor([2, 0, 2, 0])
    shares = []
    for step in range(20):
        mixed, largest, soft = mix_pairs(x, y, Augmentation(**{kind: 1.0}), num_classes=3, key=(0, 0, step))
        torch.testing.assert_close(soft[:, 0], mixed.mean(dim=(1, 2, 3)))
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(4))
        assert torch.equal(soft.gather(1, largest[:, None])[:, 0], soft.amax(dim=1))
        assert kind == "mixup" or mixed.unique().tolist() == [0, 1]
        shares.append(float(soft[0, 2]))
    assert min(shares) < 0.4
    assert max(shares) > 0.7


def test_either_of_both_ways_of_mixing_is_taken_half_of_the_time():
    x, y = torch.rand(2, 1, 16, 16), torch.tensor([0, 1])
    options = {"num_classes": 2}
    both = Augmentation(mixup=1.0, cutmix=1.0)
    cuts = 0
    for step in range(60):
        mixed, _, _ = mix_pairs(x, y, both, key=(0, 0, step), **options)
        cuts += bool(((mixed == x) | (mixed == x.flip(0))).all())
    assert 18 < cuts < 42


def test_a_batch_depends_on_seed_epoch_and_step_alone():
    data = example()
    before = torch.get_rng_state()
    loader = Loader(data, batch_size=8, augment=EVERYTHING, seed=1)
    whole = list(loader.epoch(2))
    assert same(Loader(data, batch_size=8, augment=EVERYTHING, seed=1).epoch(2, start=3), whole[3:])
    assert torch.equal(torch.get_rng_state(), before)
    for other in (loader.epoch(3), Loader(data, batch_size=8, augment=EVERYTHING, seed=2).epoch(2)):
        assert not torch.equal(next(iter(other)).x, whole[0].x)
    # Two processes hold the halves of the same batch.
    halves = [Loader(data, batch_size=8, augment=EVERYTHING, seed=1, rank=Rank(rank=r, size=2)) for r in (0, 1)]
    for batch, *parts in zip(whole, *(half.epoch(2) for half in halves), strict=True):
        for name in ("x", "y", "index", "soft_labels"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_change_nothing(folder):
    options = {"batch_size": 4, "augment": replace(EVERYTHING, mixup=0.0), "seed": 3}
    streaming = loader_for(folder, memory_limit=100, num_workers=1, **options)
    assert isinstance(streaming.data, Folder)
    for one, other in zip(streaming.epoch(1), loader_for(folder, **options).epoch(1), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.soft_labels, other.soft_labels)


def test_refused():
    memory = uiat.PGDAT(attack=uiat.PGD(start="memory"))
    for data in ({"augment": "resized-crop"}, {"randaugment": 1}, {"mixup": 0.8}):
        with pytest.raises(UserError, match='"memory" follows pixels through crops and mirroring alone'):
            check_plan(uiat.Run(objective=memory, data=uiat.Data(**data)))
    check_plan(uiat.Run(objective=memory, data=uiat.Data(augment="crop-flip", erasing=0.5)))
    data = example()
    two_channels = Loader(replace(data, images=data.images[:, :2]), batch_size=8, augment=EVERYTHING).epoch(0)
    with pytest.raises(UserError, match="RandAugment takes images of 1 or 3 channels, not 2"):
        next(two_channels)
    with pytest.raises(UserError, match="multiple of 4, not 6"):
        Loader(example(), batch_size=6, augment=EVERYTHING, rank=Rank(rank=0, size=2))
