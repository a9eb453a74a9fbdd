"""The statistics of an evaluation against numbers worked out by hand or by others."""

import pytest
import torch

from uiat.evaluation.result import accuracy_by_class, calibration_error


def test_accuracy_by_class():
    right = torch.tensor([True, True, False, False, True, True])
    assert accuracy_by_class(right, torch.tensor([0, 0, 0, 1, 3, 3]), classes=5) == [
        pytest.approx(2 / 3),
        0,
        None,
        1,
        None,
    ]


def test_calibration_error_by_hand():
    # Four bins: (0, 0.25], (0.25, 0.5], (0.5, 0.75], (0.75, 1].
    confidence = torch.tensor([0.3, 0.5, 0.6, 0.8, 1.0, 1.0])
    right = torch.tensor([True, False, True, False, True, True])
    # (0.3, 0.5): one right of two, 0.8 expected; (0.6): 1, 0.6; (0.8, 1, 1): 2, 2.8.
    assert calibration_error(confidence, right, bins=4) == pytest.approx((0.2 + 0.4 + 0.8) / 6, abs=1e-7)


def test_a_model_that_knows_how_sure_it_may_be_has_no_calibration_error():
    confidence = torch.full((10,), 0.7)
    assert calibration_error(confidence, torch.arange(10) < 7) == pytest.approx(0, abs=1e-7)
    assert calibration_error(confidence, torch.arange(10) < 0) == pytest.approx(0.7)
    assert calibration_error(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == 0
