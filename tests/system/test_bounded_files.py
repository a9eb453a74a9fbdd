"""Files from elsewhere are read to the end that they say they have, and no pipe or device is opened."""

import os
from pathlib import Path

import pytest

from uiat import UserError
from uiat.system import bounded_files
from uiat.system.bounded_files import nothing_of_links, pieces_of, read_file

ENDLESS = "/proc/self/pagemap"  # a regular file of 0 bytes that goes on for terabytes
on_linux = pytest.mark.skipif(not Path(ENDLESS).is_file(), reason="there is no such file")


def test_a_file_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_files, "_PIECE", 4)
    (tmp_path / "a").write_bytes(bytes(range(10)))
    assert list(map(len, pieces_of(tmp_path / "a", most=10))) == [4, 4, 2]
    assert read_file(tmp_path / "a") == bytes(range(10))
    with pytest.raises(UserError, match="it is larger than 9 bytes"):
        read_file(tmp_path / "a", most=9)


@pytest.mark.parametrize("target", ["/dev/zero", ".", None, pytest.param(ENDLESS, marks=on_linux)])
def test_what_is_no_file_or_has_no_end_is_refused(tmp_path, target):
    odd = tmp_path / "odd"
    os.mkfifo(odd) if target is None else odd.symlink_to(target)
    with pytest.raises(UserError, match=f"^cannot read {odd}: it (is no file|goes on behind the end)"):
        read_file(odd)


@pytest.mark.parametrize(
    ("linked", "said"), [(True, "is a link to something that does not hold x"), (False, "hunter2")]
)
def test_only_an_error_about_a_link_is_replaced(tmp_path, linked, said):
    path = tmp_path / "a"
    path.symlink_to("elsewhere") if linked else path.write_text("")
    with pytest.raises(UserError, match=said), nothing_of_links(path, "x"):
        raise UserError("hunter2")
