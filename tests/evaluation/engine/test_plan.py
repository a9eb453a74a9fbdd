"""The plan of an evaluation: what is refused, and stages that several attacks have in common are run once."""

import math

import pytest
import torch
from torch import nn

from support import tiny
from support.evaluations import (
    Threshold,
    assert_same,
    correct_images,
    evaluate,
    evaluate_short,
    images,
    net,
    network,
    ramp,
    stop_at,
)
from uiat import Linf, UserError


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("attacks", [("apgd-t", "autoattack"), ("autoattack-quick", "autoattack", "apgd-t")])
def test_a_stage_that_two_attacks_have_in_common_is_run_once(attacks, tmp_path):
    alone = {name: evaluate_short(attacks=[name]) for name in attacks}
    bound, calls = stop_at(0)
    both = evaluate_short(attacks=attacks, bound=bound)
    for name, one in alone.items():
        assert both.accuracy[name] == one.accuracy[name]
        assert both.stages.get(name) == one.stages.get(name)
    most, clean = max(alone.values(), key=lambda r: len(r.passes)), alone[attacks[0]].passes["clean"]["forward"]
    assert both.passes["apgd-ce"] == most.passes["apgd-ce"]
    # APGD-T alone looks at what APGD-CE has broken, too; nothing is looked at twice.
    assert both.passes["apgd-t"] == alone["apgd-t"].passes["apgd-t"]
    assert both.passes["clean"]["forward"] == clean
    path = tmp_path / "state"
    with pytest.raises(tiny.Killed):
        evaluate_short(path, attacks=attacks, bound=stop_at(2 * len(calls) // 3)[0])
    assert_same(evaluate_short(path, attacks=attacks, resume=True), both)


@pytest.mark.usefixtures("short")
def test_stages_of_one_name_and_other_settings_are_told_apart():
    x, y = images(5)
    attacks = ["autoattack-quick", "autoattack-rand", "apgd-ce"]
    result = evaluate(net(), x, y, threat=Linf(0.05), attacks=attacks)
    assert result.budgets["apgd-ce"]["draws"] == 1
    assert result.budgets["apgd-ce (autoattack-rand)"]["draws"] == 20
    assert list(result.stages["autoattack-rand"]) == ["apgd-ce (autoattack-rand)", "apgd-dlr"]
    assert result.accuracy["apgd-ce"] == result.stages["autoattack-quick"]["apgd-ce"]
    alone = evaluate(net(), x, y, threat=Linf(0.05), attacks=["apgd-ce"])
    assert result.passes["apgd-ce"] == alone.passes["apgd-ce"]


class Answer(nn.Module):
    """A model that returns whatever it is told to."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.w = answer, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.answer(self.w * x.flatten(1)[:, :3])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s: s.softmax(dim=1), "returns probabilities"),
        (lambda s: (s, s), "not tuple"),
        (lambda s: {"scores": s}, "not dict"),
        (lambda s: s[:, :2], r"tells 2 classes apart, but labels run up to 2"),
        (lambda s: s * math.nan, "NaN or infinite"),
        (lambda s: s.long(), "floating-point"),
        (lambda s: s.sum(), r"shape \(\) for one image"),
        (lambda s: s[:, 0], r"shape \(1,\) for one image"),
        (lambda s: s[:1], r"shape \(1, 3\) for 4 images"),
    ],
)
def test_models_that_do_not_return_logits(answer, message, unchecked):
    with pytest.raises(UserError, match=message):
        evaluate(Answer(answer), torch.rand(9, 1, 4, 4), torch.arange(9) % 3, threat=Linf(0.1))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64), "empty"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0, 2]), "labels run up to 2"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0, -1]), "non-negative"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0]), r"shape \(2,\)"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0.0, 1.0]), "int64"),
        (torch.rand(2, 1, 4, 4) * 255, torch.tensor([0, 1]), "divide by 255"),
        (torch.randint(0, 255, (2, 1, 4, 4), dtype=torch.uint8), torch.tensor([0, 1]), "divide by 255"),
        (torch.full((2, 1, 4, 4), math.nan), torch.tensor([0, 1]), "not finite"),
        (torch.rand(2, 1, 4, 4) - 0.5, torch.tensor([0, 1]), "unnormalised"),
    ],
)
def test_images_and_labels_that_cannot_be_meant(x, y, message, unchecked):
    with pytest.raises(UserError, match=message):
        evaluate(Threshold(), x, y, threat=Linf(0.1))


def test_other_arguments_that_cannot_be_meant(unchecked):
    x, y = ramp()
    with pytest.raises(UserError, match="attacks must be a list, such as"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks="clean,pgd-20")
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), batch_size=0)
    with pytest.raises(UserError, match="tells 2 classes apart, and the evaluated model 3"):
        evaluate(network(3), *correct_images(network(3)), threat=Linf(0.2), transfer=network(2))
    with pytest.raises(UserError, match="needs a second model"):
        evaluate(Threshold(), x, y, threat=Linf(0.2), attacks=["transfer"])
    with pytest.raises(UserError, match="the model to transfer from must return a tensor of logits, not tuple"):
        evaluate(Threshold(), x, y, threat=Linf(0.2), transfer=Answer(lambda s: (s, s)))
