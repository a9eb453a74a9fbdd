"""Held-out parts and subsets: stratified, disjoint, chosen by seed."""

import pytest
import torch

from uiat import data as uidata
from uiat.data import ImageSet, from_tensors, split_validation, stratified_subset
from uiat.errors import UserError


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
