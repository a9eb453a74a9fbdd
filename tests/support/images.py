"""Small sets of images and image files, and the comparison of batches."""

import torch

from uiat.data import ImageSet, as_float, from_tensors


def example(n: int = 50, dtype: torch.dtype = torch.uint8) -> ImageSet:
    """Make a set of random images (n, 3, 9, 7) in five classes."""
    x = torch.randint(1, 256, (n, 3, 9, 7), dtype=torch.uint8)
    return from_tensors(x if dtype == torch.uint8 else as_float(x), torch.arange(n) % 5)


def same(a, b) -> bool:
    """True if two lists of batches are bit-identical."""
    pairs = zip(a, b, strict=True)
    return all(torch.equal(getattr(p, f), getattr(q, f)) for p, q in pairs for f in ("x", "y", "index"))


def write_images(where, classes, n, size=(12, 10)):
    """Write n PNGs of random pixels for each class."""
    from PIL import Image

    for name in classes:
        (where / name).mkdir(parents=True)
        for i in range(n):
            pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(where / name / f"{i}.png")
