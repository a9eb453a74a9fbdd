"""What the studies of accuracy against strength have in common."""

import pytest

from support import helpers
from support.studies import known
from uiat.analyse.radii import choose_radii, radius_writer


def test_radii_are_multiples_of_the_threat_models_unless_they_are_given():
    model, x, y = helpers.at_distances()
    assert choose_radii(known({"line": model}, x, y), [0.0, 0.5, 2.0]) == pytest.approx([0.0, 0.05, 0.2])
    assert choose_radii(known({"line": model}, x, y, epsilons="0,1/255"), [1.0]) == pytest.approx([0.0, 1 / 255])


@pytest.mark.parametrize(("norm", "text"), [("Linf", "4/255"), ("L2", "0.0157")])
def test_radii_are_written_as_that_of_the_threat_model_is(norm, text):
    assert radius_writer({"norm": norm, "epsilon": 8 / 255})(4 / 255) == text
