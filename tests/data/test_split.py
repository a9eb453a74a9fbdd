"""Held-out parts and subsets: stratified, disjoint, chosen by seed."""

import pytest
import torch

from uiat import data as uidata
from uiat.data import ImageSet, choose_subsample, from_tensors, split_validation, stratified_subset, take_images
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


def by_class(*counts: int) -> torch.Tensor:
    return torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])


@pytest.mark.parametrize("counts", [(20, 20, 20), (100, 7, 3), (1, 50), (5,) * 12])
def test_a_sample_of_a_set_that_lies_class_by_class_keeps_the_fraction_of_each_class(counts):
    labels, classes = by_class(*counts), len(counts)
    whole = choose_subsample(labels, len(labels), num_classes=classes).index
    assert whole.sort().values.tolist() == list(range(len(labels)))
    for n in range(1, len(labels)):
        sample = choose_subsample(labels, n, num_classes=classes)
        assert sample.rule == "stratified"
        assert torch.equal(sample.index, whole[:n])  # of a smaller n the first of a larger one
        taken = torch.bincount(labels[sample.index], minlength=classes)
        assert int((taken > 0).sum()) == min(n, classes)
        assert torch.all((taken - torch.tensor(counts) * n / len(labels)).abs() <= classes)


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (torch.arange(10).repeat(6), "first"),  # mixed, as the test sets of benchmarks
        (by_class(20, 20, 20), "stratified"),
        (by_class(20, 20, 20).flip(0), "stratified"),
        (torch.tensor([2] * 9 + [0] * 8 + [1] * 7), "stratified"),
        (by_class(20, 20, 20).roll(1), "first"),
    ],
)
def test_the_rule_is_that_of_the_order_of_the_labels(labels, rule):
    sample = choose_subsample(labels, 6, num_classes=10)
    assert sample.rule == rule
    if rule == "first":
        assert sample.index.tolist() == list(range(6))
        assert sample.to_json() == {"rule": "first", "of": len(labels)}
    else:
        assert torch.bincount(labels[sample.index])[labels.unique()].tolist() == [2, 2, 2]
        assert sample.to_json()["index"] == sample.index.tolist()


def test_all_images_stay_in_their_order():
    data = ImageSet(torch.rand(6, 1, 8, 8), by_class(3, 3), ("a", "b"), "mine")
    images, sample = take_images(data, None)
    assert torch.equal(images.images, data.images)
    assert (sample.rule, sample.text) == ("all", "")
