import json

import pytest
import torch

from support import helpers
from uiat import UserError
from uiat.evaluation.corruptions import KINDS, corrupt, corruption_accuracy


def test_accuracy():
    model, batch, calls = helpers.cnn(), helpers.batch(13), []
    before = helpers.snapshot(model)
    result = corruption_accuracy(
        model,
        batch.x,
        batch.y,
        kinds=["fog", "contrast"],
        severities=[1, 5],
        batch_size=5,
        seed=2,
        progress=lambda *t: calls.append(t),
    )
    helpers.assert_untouched(model, before)
    model.eval()
    for kind in ("fog", "contrast"):
        for severity in (1, 5):
            correct = model(corrupt(batch.x, kind, severity, seed=2)).argmax(1) == batch.y
            assert result.accuracy[kind][severity] == pytest.approx(correct.double().mean().item())
    assert result.clean == pytest.approx((model(batch.x).argmax(1) == batch.y).double().mean().item())
    everything = [value for values in result.accuracy.values() for value in values.values()]
    assert result.mean == pytest.approx(sum(everything) / 4)
    assert calls == [(kind, done, 6) for kind in ("fog", "contrast") for done in range(1, 7)]
    assert (result.n, result.strengths, result.seed) == (13, "CIFAR-10-C", 2)
    record = json.loads(json.dumps(result.to_json()))
    assert record["accuracy"]["fog"] == {"1": result.accuracy["fog"][1], "5": result.accuracy["fog"][5]}
    assert record["mean"] == result.mean


def test_accuracy_does_not_depend_on_the_batch_size():
    model, batch = helpers.cnn(), helpers.batch(11)
    results = [corruption_accuracy(model, batch.x, batch.y, severities=[3], batch_size=size) for size in (3, 100)]
    assert results[0].accuracy == results[1].accuracy
    assert tuple(results[0].accuracy) == KINDS
    assert set(results[0].seconds) == set(KINDS)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ["snw"]}, "did you mean 'snow'"),
        ({"kinds": "fog,snow"}, "kinds must be a list"),
        ({"kinds": []}, "kinds must name at least one"),
        ({"severities": [7]}, "severity must be"),
        ({"batch_size": 0}, "batch_size"),
        ({"y": torch.tensor([0, 9])}, "labels run up to 9"),
    ],
)
def test_accuracy_of_what_cannot_be(settings, message):
    arguments = {"y": torch.tensor([0, 1])} | settings
    with pytest.raises(UserError, match=message):
        corruption_accuracy(helpers.cnn(), torch.rand(2, 1, 8, 8), **arguments)
