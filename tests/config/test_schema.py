"""The settings of a run: frozen values with a default for each field, and values that cannot be meant refused."""

import dataclasses

import pytest

from uiat import (
    PGD,
    UIAT,
    Compute,
    Data,
    Evaluation,
    InstanceInverse,
    Linf,
    Model,
    Optimisation,
    Run,
    Standard,
    UniversalInverse,
)
from uiat.config import yaml_io
from uiat.config.schema import is_own_code
from uiat.errors import UserError


def test_every_field_has_a_default_and_is_frozen():
    for part in (Run, Data, Model, Optimisation, Evaluation, UIAT, PGD, UniversalInverse, InstanceInverse):
        config = part()
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, dataclasses.fields(part)[0].name, None)


def test_a_run_is_evaluated_under_its_objectives_threat_unless_told_otherwise():
    assert Run().threat == Linf("8/255")
    assert Run(evaluation=Evaluation(threat=Linf("3/255"))).threat == Linf("3/255")
    assert Run(objective=Standard()).threat is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Data(batch_size=0), "batch_size must be at least 1, but is 0"),
        (lambda: Data(augment="flip"), "augment"),
        (lambda: Optimisation(learning_rate=float("inf")), "learning_rate must be finite"),
        (lambda: Optimisation(momentum=float("nan")), "momentum must be at least 0, but is nan"),
        (lambda: Optimisation(peak_at=1.0), "peak_at must be below 1, but is 1"),
        (lambda: Optimisation(epochs=0), "epochs must be at least 1"),
        (lambda: Optimisation(weight_decay=-1.0), "weight_decay"),
        (lambda: Optimisation(average_decay=1.0), "average_decay must be below 1"),
        (lambda: Optimisation(awp=-0.01), "awp must be at least 0"),
        (lambda: Optimisation(clip_norm=-1.0), "clip_norm must be above 0, but is -1"),
        (lambda: Compute(compile=True, recompute=True), "compile and recompute do not go together"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_that_cannot_be_meant_are_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()


def test_code_of_ones_own_is_named_with_a_colon_and_not_from_timm():
    names = {"small-cnn": False, "timm:resnet10t": False, "net.py:make": True, "package.module:make": True}
    assert {name: is_own_code(Run(model=Model(name=name))) for name in names} == names


@pytest.mark.parametrize("value", ["maybe", 3])
def test_a_wrong_value_of_compile_is_refused_by_name(value):
    with pytest.raises(UserError, match=r"compute\.compile must be .*auto"):
        yaml_io.build(Run, {"compute": {"compile": value}})
