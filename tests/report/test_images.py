"""Images in the report."""

import zlib

import torch

from support.run_folders import make_samples
from uiat.report import read_all
from uiat.report.images import galleries, magnify, png, universals
from uiat.report.inputs import Inputs


def test_a_png_holds_the_pixels():
    content = png(torch.tensor([[[0.0, 1.0]], [[0.5, 0.0]], [[1.0, 0.0]]]))
    start = content.index(b"IDAT") + 4
    assert zlib.decompressobj().decompress(content[start:]) == bytes([0, 0, 128, 255, 255, 0, 0])
    shown, factor = magnify(torch.zeros(1, 2, 2))
    assert (shown.unique().tolist(), factor) == ([0.5], 1.0)


def test_images_say_what_they_are_taken_for_and_what_was_added(runs):
    inputs = Inputs(read_all(runs), make_samples(runs[2]))
    (gallery,) = galleries(inputs).parts
    assert (gallery.title, len(gallery.cards)) == ("uiat", 3)
    kinds = [(picture.kind, picture.tone) for picture in gallery.cards[0].pictures]
    assert kinds[:3] == [("natural", "agrees"), ("adversarial", "suspicious"), ("added adversarial", "")]
    assert kinds[3:] == [("inverse", "agrees"), ("added inverse", "")]
    assert gallery.cards[0].pictures[1].below == "✗\u00a0dog, 60\u00a0%"
    (strip,) = universals(inputs).parts
    assert [picture.below for picture in strip.pictures][3] == "cat"
    assert strip.intro.startswith("In the ball Linf 0.5; magnified ×1")
