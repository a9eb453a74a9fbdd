"""Iterables of labelled images, in chunks: whatever yields them, and what is wrong with them in one line."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from uiat.data import ImageSet, open_stream, stream
from uiat.errors import UserError

X, Y = torch.rand(7, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0])


class Batches(IterableDataset):
    def __init__(self, *batches, says):
        self.batches, self.says = batches, says

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return self.says


@pytest.mark.parametrize(
    ("data", "total"),
    [
        ((X, Y), None),
        ([(X[:3], Y[:3]), (X[3:], Y[3:])], None),
        (TensorDataset(X, Y), 7),
        (DataLoader(TensorDataset(X, Y), batch_size=2), None),
        (((x, int(y)) for x, y in zip(X, Y, strict=True)), None),
        (ImageSet(X, Y, ("a", "b", "c"), "set"), 7),
        ([(X.numpy(), Y.numpy())], None),
    ],
    ids=["pair", "list", "dataset", "loader", "generator", "set", "arrays"],
)
def test_the_same_chunks_come_of_everything(data, total, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 3 * 64)
    opened = open_stream(data)
    assert (opened.image_shape, opened.total) == ((1, 4, 4), total)
    chunks = list(opened.chunks())
    assert [len(y) for _, y in chunks] == [3, 3, 1]
    assert torch.equal(torch.cat([x for x, _ in chunks]), X)
    assert torch.equal(torch.cat([y for _, y in chunks]), Y)


def test_bytes_are_converted_and_the_first_few_taken():
    opened = open_stream([((X * 255).to(torch.uint8), Y)], name="mine").first(5)
    ((x, y),) = opened.chunks()
    assert (x.dtype, len(y), float(x.max()) <= 1, opened.name) == (torch.float32, 5, True, "mine")


NAN = X.clone().index_fill(0, torch.tensor([2]), float("nan"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Batches((X, Y), says=3), "data: it ended after 1 of 3 batches"),
        ([(X, Y), (torch.rand(2, 1, 5, 5), Y[:2])], r"batch 2 has images of shape \(1, 5, 5\) and the first one"),
        ([(X, Y), (X.double(), Y)], "batch 2 has images of torch.float64 and the first one of torch.float32"),
        ([(X, Y), (NAN, Y)], r"data: batch 2: images hold values that are not finite"),
        ([(X * 255, Y)], "batch 1: images must be in .* divide by 255 first"),
        ([(X, Y.float())], "batch 1: labels must be int64 class numbers"),
        ([(X, Y[:3])], r"batch 1: labels must have shape \(7,\)"),
        ([(X, Y - 1)], "batch 1: labels must be non-negative"),
        ([(X, Y), "text"], r"batch 2 must be a pair \(images, labels\), not str"),
        ([X], r"batch 1 must be a pair \(images, labels\), not Tensor"),
        ([X, Y], r"batch 1 must be a pair \(images, labels\), not Tensor"),
        (iter([]), "data: there are no images in it"),
        ([(np.array(["a"] * 6).reshape(1, 1, 2, 3), [0])], "images of batch 1 must be a tensor or an array of numbers"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data, message):
    with pytest.raises(UserError, match=message) as refused:
        list(open_stream(data).chunks())
    assert "\n" not in str(refused.value)
