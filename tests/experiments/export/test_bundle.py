"""What an export is made from."""

import pytest
import torch

from uiat.errors import UserError
from uiat.experiments.export.bundle import largest_difference, open_bundle
from uiat.runs.checkpoint import load


def test_a_bundle_is_the_runs_model_with_test_images(evaluated_run):
    bundle = open_bundle(evaluated_run, which="last", own_code=False, root=None)
    assert torch.equal(bundle.logits, load(evaluated_run, "last")(bundle.images))
    assert bundle.images.shape == (64, 1, 8, 8)
    assert not bundle.model.training
    assert bundle.to_json() == {
        "run": "run",
        "weights": "last",
        "architecture": "small-cnn",
        "image_shape": [1, 8, 8],
        "classes": [str(k) for k in range(10)],
        "input": "float images (B, C, H, W) in [0, 1]; colours in the order RGB; the model normalises them itself",
        "threat": "Linf:0.2",
        "data": "digits",
        "method": "uiat",
    }


def test_differences_are_relative_to_the_largest_logit():
    assert largest_difference(torch.tensor([[100.0, 0.0]]), torch.tensor([[100.0, 1.0]])) == pytest.approx(0.01)
    assert largest_difference(torch.tensor([[0.1]]), torch.tensor([[0.2]])) == pytest.approx(0.1)  # or to 1
    with pytest.raises(UserError, match=r"shape \(1, 2\), not \(1, 3\)"):
        largest_difference(torch.zeros(1, 3), torch.zeros(1, 2))
