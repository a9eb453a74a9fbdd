"""The rows of the ablation."""

import pytest

import uiat
from support.paths import ROOT
from uiat.analyse import changes
from uiat.config.yaml_io import to_dict
from uiat.runs.settings import find_differences


def test_each_row_changes_the_run_and_no_two_are_the_same():
    base = uiat.recipes.get("digits-uiat")
    rows = changes(base)
    runs = [uiat.override(base, fields) for fields in rows.values()]
    assert next(iter(rows)) == "uiat"
    assert runs[0] == base
    for i, run in enumerate(runs):
        assert all(run != other for other in runs[:i])
        if i:
            assert find_differences(to_dict(run), to_dict(base))
    radius = uiat.override(base, rows["radius epsilon"]).objective.inverse
    assert radius.radius == pytest.approx(0.2)
    assert radius.step_size / radius.radius == pytest.approx(
        base.objective.inverse.step_size / base.objective.inverse.radius
    )
    assert "detached target" not in rows  # which the recipe has
    assert rows["gradient through the inverse branch"] == [("objective.inverse_gradient", "true")]


def test_every_component_and_choice_has_a_row():
    rows = changes(uiat.recipes.get("cifar10-small-uiat"))
    for word in ("pgd-at", "instance-wise", "one-off", "lambda", "detached", "radius", "KL", "momentum per example"):
        assert any(word in name for name in rows), word
    for word in ("momentum per class, from 1/K", "detached target, feature regulariser", "step of half the radius"):
        assert any(word in name for name in rows), word
    full = uiat.override(uiat.recipes.get("cifar10-small-uiat"), rows["step of all of the radius"]).objective.inverse
    assert full.step_size == full.radius
    for word in ("momentum per class", "gamma", "feature", "logit", "gradient of z", "BatchNorm"):
        assert any(word in name for name in rows), word


def test_an_instance_wise_run_has_no_rows_of_the_universal_kind():
    rows = changes(uiat.recipes.get("digits-iat"))
    assert "one-off" not in rows
    assert "momentum of the gradient of z" not in rows
    assert "instance-wise inverse" not in rows


def test_the_benchmark_has_the_same_rows():
    text = (ROOT / "benchmarks" / "training" / "accuracy.py").read_text()
    assert "from uiat.analyse import changes" in text
    assert "momentum per example" not in text  # the list stands in one place
