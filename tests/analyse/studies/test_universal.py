"""Universal adversarial perturbations on models whose best ones are known."""

from dataclasses import replace

import pytest
import torch

from support import helpers
from support.studies import known
from uiat import Linf, UniversalPerturbation
from uiat.analyse.studies import universal


@pytest.fixture
def context(monkeypatch, tmp_path):
    """Two linear models of four classes that look at other pixels, each with images that it gets right."""
    torch.manual_seed(0)
    model, other = helpers.Blocks(4), helpers.Blocks(4)
    with torch.no_grad():
        other.w.copy_(model.w.roll(1, 0))
    x = helpers.interior(60)
    made = known({"one": model, "other": other}, x, model(x).argmax(1), epsilon=0.2)
    made.runs[0] = replace(made.runs[0], folder=tmp_path)
    made.class_names = lambda run: list("abcd")
    monkeypatch.setattr(universal, "group_by_seed", lambda runs: {run.label: [run] for run in runs})
    inverse = -0.2 * model.w.view(4, 1, 8, 8).sign()
    UniversalPerturbation(inverse, Linf(0.2)).save(tmp_path / "inverse.safetensors")
    return made


def test_of_a_linear_model_the_adversarial_one_is_opposite_to_the_inverse_one(context):
    found = universal.measure(context)
    row, other = found["runs"]["one"], found["runs"]["other"]
    assert row["clean"] == row["helped"] == 1.0
    assert row["robust"] <= row["class"] + 0.02
    assert row["class"] < row["clean"]
    assert min(row["cosine"]) < -0.5
    assert max(row["cosine"]) <= 0  # 0 for a class without an image to fit on
    assert "cosine" not in other
    assert found["transfer"]["one"]["one"] == row["class"]
    assert set(found["transfer"]["other"]) == {"one", "other"}
    data = found | {"n": dict(context.sizes)}
    said = " ".join(universal.sentences(data))
    assert "one against other: +" in said
    assert "fitted in 10 passes over 60 training images" in said
    assert "one: the inverse perturbation of a class and the adversarial one have a mean cosine of -" in said
    assert universal.table(data)[1][:2] == ["one", "1"]
    assert len(universal.draw(data).subfigs) == 3
