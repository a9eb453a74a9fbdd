"""Data sets by name, whatever their format."""

import numpy as np
import pytest

from uiat.data import NAMES, can_open, default_root, has_test_part, open_data
from uiat.errors import UserError


def test_names_are_told_from_what_data_in_python_is_called():
    assert [can_open(name) for name in ("digits", "npz:a.npz", "hf:a", "mine.py:f", "tensors", "custom")] == (
        [True] * 4 + [False] * 2
    )
    assert NAMES[-3:] == ("imagefolder:PATH", "npz:FILE", "hf:FOLDER")


@pytest.mark.parametrize("name", ["npz:", "hf:", "nzp:a.npz", "imagefolder:"])
def test_a_format_without_a_place_or_mistyped_is_an_unknown_data_set(name):
    with pytest.raises(UserError, match="unknown data set"):
        open_data(name, "train")


def test_the_root_and_the_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("UIAT_DATA", str(tmp_path))
    assert default_root() == tmp_path
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 8, 8)), y=np.arange(2))
    assert [has_test_part(name) for name in ("digits", f"npz:{tmp_path}/a.npz")] == [True, False]
