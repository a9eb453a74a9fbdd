"""What the page shows is the attack, the inverse attack and the universal perturbation, by their formulas."""

from dataclasses import replace

import pytest
import torch

from uiat.data import as_float
from uiat.errors import UserError
from uiat.explore import Question

HERE = Question(source=0, label=0, position=8, image=0)


@pytest.mark.parametrize("position", [-16, -3, 0, 8])
def test_an_attack_on_a_linear_model_is_one_sign(explorer, position):
    weight = explorer.subjects[0].model[1].weight
    x = as_float(explorer.images.images)[0]
    direction = (weight[1] - weight[0]).sign().view(x.shape)  # raises the loss of class 0
    answer = explorer.answer(replace(HERE, position=position))
    assert torch.allclose(answer.image, x + position / 8 * 0.1 * direction, atol=1e-6)
    shares = explorer.subjects[1].model(answer.image[None]).softmax(dim=1)[0]
    assert torch.allclose(answer.probabilities[1], shares)


def test_the_universal_perturbation_is_scaled(explorer):
    x, z = as_float(explorer.images.images)[2], explorer.subjects[0].inverse.z
    answer = explorer.answer(Question(source=2, label=1, position=-4, image=2))
    assert torch.allclose(answer.image, x + z[1], atol=1e-6), "epsilon 0.05 towards the class is z as it was trained"
    away = explorer.answer(Question(source=2, label=0, position=8, image=2))
    assert torch.allclose(away.image, x - 2 * z[0], atol=1e-6)


def test_a_drawn_image_is_taken_as_it_is(explorer):
    drawn = bytes(range(0, 90, 10))
    image = explorer.answer(Question(source=0, label=0, position=0, drawn=drawn)).image
    assert (255 * image).round().flatten().tolist() == list(drawn)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": 3}, "source must be from 0 to 2, not 3"),
        ({"label": -1}, "label must be from 0 to 1"),
        ({"position": 17}, "position must be from -16 to 16"),
        ({"image": 4}, "image must be from 0 to 3"),
        ({"image": None, "drawn": b"12"}, "a drawn image has 9 bytes, not 2"),
    ],
)
def test_what_there_is_not_is_refused(explorer, change, says):
    with pytest.raises(UserError, match=says):
        explorer.answer(replace(HERE, **change))


def test_answers_that_are_not_finite_are_refused(explorer):
    torch.nn.init.constant_(explorer.subjects[1].model[1].bias, float("nan"))
    with pytest.raises(UserError, match="second answers with values that are not finite"):
        explorer.answer(HERE)
