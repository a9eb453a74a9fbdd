"""What is refused before work is done on it, and with which words."""

import numpy as np
import pytest
import torch

from uiat import UIAT, InstanceInverse, Optimisation, UniversalInverse
from uiat.attacks import PGD
from uiat.checks import check_batch, check_shapes, check_values
from uiat.config.schema import Compute, Data, Guards, Model, Validation
from uiat.errors import UserError

X, Y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])


def with_value(value: float) -> torch.Tensor:
    x = X.clone()
    x[1, 0, 2, 3] = value
    return x


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ((X * 255).to(torch.uint8), Y, "divide by 255"),
        ((X * 255).long(), Y, "divide by 255"),
        (X.numpy(), Y, "must be torch tensors"),
        (X, np.array([0, 1, 2]), "must be torch tensors"),
        (torch.rand(3), Y, "must be a batch"),
        (X[:0], Y[:0], "empty"),
        (X, Y.int(), "labels must be int64"),
        (X, Y.float(), "labels must be int64"),
        (X, Y[:2], r"labels must have shape \(3,\)"),
        (X, torch.eye(3).long(), r"labels must have shape \(3,\)"),
        (X * 255, Y, "divide by 255 first"),
        (4 * X - 2, Y, "unnormalised|divide by 255"),
        (1.5 * X - 0.25, Y, "give them unnormalised"),
        (with_value(float("nan")), Y, "not finite"),
        (with_value(float("inf")), Y, "not finite"),
        (with_value(-float("inf")), Y, "not finite"),
        (X, torch.tensor([0, 1, -1]), r"labels must be in 0\.\.2, but run from -1 to 1"),
        (X, torch.tensor([0, 1, 3]), r"labels must be in 0\.\.2, but run from 0 to 3"),
    ],
)
def test_a_bad_batch_is_refused_in_one_sentence(x, y, says):
    with pytest.raises(UserError, match=says) as caught:
        check_batch(x, y, num_classes=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_good_batch_passes(dtype):
    check_batch(X.to(dtype), Y, num_classes=3)
    check_batch(X.to(dtype).requires_grad_(True), Y)


@pytest.mark.parametrize("x", [torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8), (X - 1e-7).clamp(-1e-7, 1)])
def test_the_ends_of_the_range_belong_to_it_and_rounding_is_forgiven(x):
    check_values(x, Y)


def test_shapes_are_checked_without_reading_values():
    """On the meta device there are no values to read, as if the device were never waited for."""
    check_shapes(X.to("meta"), Y.to("meta"))


def test_without_a_number_of_classes_only_negative_labels_are_wrong():
    check_values(X, torch.tensor([0, 1, 1000]))
    with pytest.raises(UserError, match="non-negative"):
        check_values(X, torch.tensor([0, 1, -1]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kind", "field", "value", "says"),
    [
        (PGD, "loss", "CE", "unknown loss 'CE'"),
        (PGD, "loss", "cross-entropy", "known: ce, kl, margin"),
        (PGD, "start", "gausian", "did you mean 'gaussian'"),
        (PGD, "keep", "first", "known: best, last"),
        (PGD, "batchnorm", "test", "known: eval, train"),
        (InstanceInverse, "regulariser", "features", "did you mean 'feature'"),
        (UniversalInverse, "regulariser", "kl", "known: feature, feature-repulsion, logit, none"),
        (UniversalInverse, "start", "zero", "did you mean 'zeros'"),
        (UIAT, "kl", "adversarial", "adversarial-inverse"),
        (UIAT, "momentum", "per-example", "did you mean 'example'"),
        (UIAT, "batchnorm", "none", "known: adversarial, both"),
        (Optimisation, "optimizer", "adam", "did you mean 'adamw'"),
        (Optimisation, "schedule", "one-cycle", "did you mean 'onecycle'"),
        (Optimisation, "average", "EMA", "known: ema, none, swa"),
        (Data, "augment", "flip", "did you mean 'crop-flip'"),
        (Model, "activation", "gelu", "known: relu, silu"),
        (Validation, "metric", "robustness", "did you mean 'robust'"),
        (Guards, "overfitting", "abort", "known: rollback, stop, warn"),
        (Compute, "precision", "fp16", "did you mean"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(kind, field, value, says):
    """Python does not look at a Literal: unchecked, PGD(loss="CE") would quietly be a margin attack."""
    with pytest.raises(UserError, match=says):
        kind(**{field: value})
