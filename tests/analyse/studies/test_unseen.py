"""Threats that no run was trained for, on models that nothing or everything breaks."""

import torch

from support import helpers
from support.studies import Always, known
from uiat.analyse.studies import unseen
from uiat.evaluation.corruptions import KINDS


def test_a_constant_model_loses_nothing_and_one_that_looks_at_pixels_does(monkeypatch):
    torch.manual_seed(0)
    x = helpers.interior(12)
    context = known({"one": helpers.Blocks(4), "still": Always([5.0, 0.0, 0.0, 0.0])}, x, torch.zeros(12).long())
    context.data = (x, torch.zeros(12, dtype=torch.int64))
    monkeypatch.setattr(unseen, "group_by_seed", lambda runs: {run.label: [run] for run in runs})
    monkeypatch.setattr(unseen, "KINDS", KINDS[:1])
    found = unseen.measure(context)
    assert found["columns"][:4] == ["clean", "Linf 0.05", "Linf 0.1", "Linf 0.15"]
    assert [name.split()[0] for name in found["columns"][4:6]] == ["L2", "L1"]
    assert found["columns"][-4:] == ["patch-2", "spatial", "recolour", "corruptions"]
    assert set(found["runs"]["still"].values()) == {1.0}
    one = found["runs"]["one"]
    assert one["Linf 0.15"] <= one["Linf 0.1"] <= one["Linf 0.05"] <= one["clean"] < 1
    data = found | {"n": dict(context.sizes)}
    said = " ".join(unseen.sentences(data))
    assert "one is above still under nothing, and below it under clean, " in said
    assert unseen.table(data)[1][0] == "clean"
    assert len(unseen.draw(data).axes[0].containers) == 2
