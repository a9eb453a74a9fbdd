from typing import Annotated, get_args

import jaxtyping
import pytest
import torch
from torch import Tensor

from shapecheck import check, to_jaxtyping
from uiat.attacks.search import where_image
from uiat.shapes import Bool, Float, Int, Shape


def test_a_shape_is_an_annotation_of_a_tensor():
    assert Float[Tensor, "b c"] == Annotated[Tensor, Shape("Float", "b c")]


def test_the_tests_check_shapes_however_deep_they_stand():
    batch = to_jaxtyping(tuple[Float[Tensor, "b c"], Int[Tensor, "b"] | None])
    images, labels = get_args(batch)
    assert isinstance(torch.zeros(2, 3), images)
    assert not isinstance(torch.zeros(2), images)
    assert isinstance(None, labels)
    assert not isinstance(torch.zeros(2), labels)
    _, masks = get_args(to_jaxtyping(dict[str, Bool[Tensor, "n"]]))
    assert not isinstance(torch.zeros(2), masks)
    assert to_jaxtyping(dict[str, int]) == dict[str, int]


@jaxtyping.jaxtyped(typechecker=check)
def first(x: Float[Tensor, "b c"], y: Int[Tensor, "b"]) -> Float[Tensor, "c"]:
    return x[y[0]]


def test_sizes_of_one_name_must_agree_in_a_call():
    assert first(torch.zeros(2, 3), torch.tensor([1, 0])).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'y'"):
        first(torch.zeros(2, 3), torch.tensor([1, 0, 1]))


def test_calls_of_the_package_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match="where_image"):
        where_image(torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, 1), torch.zeros(2, 1))
