"""The user's own code by name: found, described, and its import path put back."""

import sys
from pathlib import Path

import pytest

from uiat.errors import UserError
from uiat.system.own_code import describe_code, find_entry_point, find_source, own_code


def test_the_search_path_survives_code_that_rearranges_it(tmp_path):
    (tmp_path / "mine.py").write_text("def make(): pass\n")
    before = list(sys.path)
    with own_code(f"{tmp_path}/mine.py:make", what="model"):
        sys.path.remove(str(tmp_path))
    assert sys.path == before


def test_code_is_described_by_its_name_and_a_checksum_of_its_file(tmp_path):
    file = tmp_path / "mine.py"
    texts = []
    for body in ("return 1", "return 1", "return 2"):
        file.write_text(f"def make(): {body}\n")
        with own_code(f"{file}:make", what="model") as found:
            texts.append(describe_code(found))
    assert texts[0] == texts[1] != texts[2]
    assert ":make, sha256 " in texts[0]
    assert describe_code(len) == "builtins:len"


def test_messages_name_what_was_looked_for():
    with pytest.raises(UserError, match=r"'mine' is not an attack; write path/to/file.py:FUNCTION"):
        own_code("mine", what="attack").__enter__()
    with pytest.raises(UserError, match=r"there is no file 'no.py' to read the data set from"):
        own_code("no.py:read", what="data set").__enter__()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys\nsys.exit(0)", r"'mine.py' could not be imported: SystemExit: 0; put .* under if __name__"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--lr'])", "could not be imported: SystemExit: 2"),
        ("def noise():\n    raise SystemExit('bye')", r"'mine.py:noise' ended the program when it was called \(.*bye"),
    ],
)
def test_code_that_ends_the_program_is_an_error(code, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=says), own_code("mine.py:noise", what="attack") as noise:
        noise()


def test_the_file_behind_a_name_is_found_without_running_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit")
    assert find_source("mine.py:noise") == Path("mine.py")
    assert find_source("mine:noise") == tmp_path / "mine.py"
    assert [find_source(name) for name in ("no.py:noise", "no_such:noise", "sys:exit", "noise")] == [None] * 4


def test_an_entry_point_that_does_not_import_is_named(tmp_path, monkeypatch):
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uiat.attacks]\nsteep = no_such_module_anywhere:steep\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="'steep', of no_such_module_anywhere:steep, does not import"):
        find_entry_point("uiat.attacks", "steep")
    assert find_entry_point("uiat.attacks", "other") is None
