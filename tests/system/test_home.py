"""Paths as users write them: the home folder, and the homes of users whom nobody knows."""

from pathlib import Path

import pytest

from uiat import UserError
from uiat.data import open_data
from uiat.data.extra import open_extra
from uiat.data.sources import default_root
from uiat.models import build
from uiat.models.weights_file import read_state_dict
from uiat.system.home import expand_home
from uiat.system.own_code import find_source

NOBODY = "~nobody-of-this-name"


def test_the_own_home_is_put_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home("~/x") == tmp_path / "x"
    assert expand_home("a/~") == Path("a/~")


@pytest.mark.parametrize(
    "use",
    [
        lambda: open_data(f"npz:{NOBODY}/x.npz", "test"),
        lambda: open_data(f"hf:{NOBODY}/x", "test"),
        lambda: open_data(f"imagefolder:{NOBODY}/x", "test"),
        lambda: open_data("mnist", "test", root=f"{NOBODY}/x", download=False),
        lambda: open_extra(f"{NOBODY}/x.npz", image_shape=(1, 8, 8), num_classes=2),
        lambda: read_state_dict(f"{NOBODY}/x.pth"),
        lambda: build(f"{NOBODY}/net.py:make", num_classes=2, image_shape=(1, 8, 8)),
        lambda: build(f"transformers:{NOBODY}/x", num_classes=2, image_shape=(3, 32, 32)),
    ],
)
def test_the_home_of_an_unknown_user_is_a_path_that_does_not_exist(use):
    with pytest.raises(UserError):
        use()


def test_no_place_raises_what_pathlib_would(monkeypatch):
    monkeypatch.setenv("UIAT_DATA", f"{NOBODY}/data")
    assert default_root() == Path(f"{NOBODY}/data")
    assert find_source(f"{NOBODY}/net.py:make") is None
