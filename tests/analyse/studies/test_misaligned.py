"""Images that a model gets wrong as they are."""

import pytest
import torch

from support import helpers
from support.studies import Always, known
from uiat.analyse.studies.misaligned import measure, sentences


def test_the_pull_is_1_for_a_model_that_never_leaves_its_wrong_class():
    x, y = torch.rand(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    stuck, unsure = Always([0.0, 60.0]), Always([0.0, 1.0])
    data = measure(known({"stuck": stuck, "unsure": unsure}, x, y))
    for kind in ("natural", "adversarial", "inverse"):
        found = data["runs"]["stuck"][kind]
        assert [found[name] for name in ("p_wrong", "is_wrong", "pull")] == pytest.approx([1.0, 1.0, 1.0])
        assert (found["is_true"], round(found["p_true"], 6)) == (0.0, 0.0)
    assert data["runs"]["stuck"]["misclassified"] == 4
    assert data["runs"]["unsure"]["adversarial"]["pull"] == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert data["common"]["n"] == 4
    assert data["common"]["pull"]["stuck"] == pytest.approx(1.0)
    assert "Runs with fewer than 30 misclassified images say little." in sentences(data)


def test_a_model_that_can_be_helped_is_right_on_inverse_examples():
    model, x, y = helpers.at_distances()
    data = measure(known({"line": model}, x, y, epsilon=0.2))["runs"]["line"]
    assert data["misclassified"] == 2  # 0.05 and 0.15 from the border; half the radius brings the first across
    assert data["natural"]["is_wrong"] == 1.0
    assert data["adversarial"]["is_wrong"] == 1.0
    assert data["inverse"]["is_true"] == 0.5
    assert data["inverse"]["pull"] < data["natural"]["pull"] < data["adversarial"]["pull"]


def test_a_model_without_mistakes_has_nothing_to_see():
    model, x, y = helpers.at_distances()
    data = measure(known({"line": model}, x[:3], y[:3]))
    assert data["runs"]["line"]["adversarial"]["pull"] is None
    assert "gets every image right" in sentences(data)[0]
