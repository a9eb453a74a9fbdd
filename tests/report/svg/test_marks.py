"""Every marker of a method has a shape of its own, inside its radius."""

import math
import re

from uiat.report.svg.marks import draw_mark
from uiat.runs.methods import MARKERS


def test_shapes_differ_and_stay_within_their_radius():
    shapes = [draw_mark(slot, 10, 10, 4) for slot in range(len(MARKERS))]
    assert len(set(shapes)) == len(MARKERS)
    assert draw_mark(len(MARKERS), 10, 10, 4) == shapes[0]
    for shape in shapes[1:]:
        corners = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", shape)]
        assert len(corners) >= 3
        assert max(math.dist(corner, (10, 10)) for corner in corners) <= 4.1
