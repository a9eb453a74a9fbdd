"""Sets in memory: their checks, and sets from tensors and from datasets."""

import numpy as np
import pytest
import torch

from uiat.data import ImageSet, from_dataset, from_tensors
from uiat.errors import UserError

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def images(n: int = 6, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.rand(n, 3, 8, 8)
    return (x * 255).to(torch.uint8) if dtype == torch.uint8 else x


def changed(x: torch.Tensor, value: float) -> torch.Tensor:
    x = x.clone()
    x[1, 0, 2, 3] = value
    return x


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
