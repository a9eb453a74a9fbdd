"""Runs are loaded side by side where they know the same images, and refused in one line where not."""

import pytest

from uiat.errors import UserError
from uiat.explore import load_explorer


def test_runs_side_by_side(trained_runs, unchecked):
    explorer = load_explorer([trained_runs / "uiat", trained_runs / "pgd-at"], n=20)
    assert [subject.name for subject in explorer.subjects] == ["uiat", "pgd-at"]
    assert [subject.inverse is None for subject in explorer.subjects] == [False, True]
    assert explorer.images.labels.bincount().tolist() == [2] * 10
    with pytest.raises(UserError, match="is named twice"):
        load_explorer([trained_runs / "uiat", trained_runs / "pgd-at" / ".." / "uiat"])
    with pytest.raises(UserError, match="1 to 200 images, not 0"):
        load_explorer([trained_runs / "uiat"], n=0)
    with pytest.raises(UserError, match="is not a run folder"):
        load_explorer([trained_runs])
