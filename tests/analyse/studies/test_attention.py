"""Saliency in the centre."""

import pytest
import torch

from support import helpers
from support.studies import Centre, known
from uiat.analyse.studies.attention import centre_fraction, draw, measure, sentences


def test_saliency_is_where_the_model_looks():
    middle, corners = torch.zeros(2, 1, 8, 8), torch.ones(2, 3, 8, 8)
    middle[..., 2:6, 2:6] = -1.0
    corners[..., 2:6, 2:6] = 0.0
    assert centre_fraction(middle).tolist() == [1.0, 1.0]
    assert centre_fraction(corners).tolist() == [0.0, 0.0]
    assert centre_fraction(torch.zeros(1, 1, 8, 8)).tolist() == [0.25]
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 2
    data = measure(known({"centre": Centre(), "everywhere": helpers.at_distances()[0]}, x, y))
    assert data["area"] == 0.25
    for kind in ("natural", "adversarial", "inverse"):
        assert data["runs"]["centre"][kind]["centre"] == pytest.approx(1.0)
        assert data["runs"]["everywhere"][kind]["centre"] == pytest.approx(0.25)
    assert data["runs"]["centre"]["robust_train"] == data["runs"]["centre"]["robust_test"]  # the same images here


def test_what_attention_says_is_no_more_than_its_images_allow():
    kind = {"centre": 0.3, "error": 0.01, "moved": 0.0, "moved_error": 0.005}
    run = {"n": 200, "n_robust": 200, "robust_train": 0.45, "robust_test": 0.40}
    run |= {name: dict(kind) for name in ("natural", "adversarial", "inverse")}
    wide = run | {"robust_test": 0.20, "inverse": kind | {"moved": -0.02, "moved_error": 0.002}}
    data = {"area": 0.25, "runs": {"narrow": run, "wide": wide}}
    said = sentences(data)
    assert said[0].endswith("on inverse images against natural ones +0.0 ± 0.5 points, which may be chance.")
    assert "on inverse images against natural ones -2.0 ± 0.2 points (to the background)." in said[1]
    assert "narrow +5.0 ± 4.9 points, which may be chance; wide +25.0 ± 4.5 points." in said[2]
    above, below = draw(data).axes
    assert -0.02 < below.get_xlim()[0] <= 0
    assert len(above.containers) == 3
    assert len(below.containers) == 2  # error bars
