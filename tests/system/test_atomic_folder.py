"""Temporary folders of killed processes."""

import shutil

from uiat.system.atomic_folder import clear_abandoned


def test_what_is_no_abandoned_folder_of_that_name_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".a.0f.partial").symlink_to(tmp_path / "elsewhere")
    for name in ("a", "a.partial", ".b.0f.partial", ".a.1f.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".a.2f.partial").write_text("a file")
    clear_abandoned(tmp_path / "a", shutil.rmtree)
    left = {".a.0f.partial", ".a.2f.partial", ".b.0f.partial", "a", "a.partial", "elsewhere"}
    assert {path.name for path in tmp_path.iterdir()} == left
