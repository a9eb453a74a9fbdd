"""PAPER.md and the code say the same: every symbol exists, names its source, and has a test and a recipe."""

import importlib
import tomllib

import pytest

from support.paths import ROOT
from uiat import recipes
from uiat.cli import paper
from uiat.errors import UserError

ROWS = paper.read_rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.statement[:40])
def test_each_row_points_at_what_exists(row):
    module, _, name = row.symbol.rpartition(".")
    symbol = getattr(importlib.import_module(module), name)
    assert symbol.__doc__
    assert any(source in symbol.__doc__ for source in ("UIAT", "Madry", "Wong", "METHOD", "CVPR 2023"))
    assert row.mark in paper.read_marks()
    file, _, test = row.test.partition("::")
    assert f"\ndef {test}(" in (ROOT / file).read_text()
    assert row.recipe in recipes.names()


def test_every_line_of_the_table_is_a_row():
    lines = [line for line in (ROOT / "PAPER.md").read_text().splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2 > 20  # without the heading and the line under it
    assert any("KL(p(x) || p(x_inv))" in row.statement for row in ROWS)
    assert set(paper.read_marks()) == {"P", "C", "S", "I", "?"}


def test_it_is_printed_with_what_the_marks_mean(ask):
    code, out, _ = ask("paper")
    assert code == 0
    assert all(row.symbol in out for row in ROWS)
    assert all(f"  {mark}  {meaning}\n" in out for mark, meaning in paper.read_marks().items())


def test_an_installation_has_the_file_beside_the_module(tmp_path, monkeypatch):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"] == {"PAPER.md": "uiat/cli/PAPER.md"}
    assert "/PAPER.md" in build["sdist"]["include"]
    module = tmp_path / "site" / "uiat" / "cli" / "paper.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(paper, "__file__", str(module))
    with pytest.raises(UserError, match=r"no PAPER\.md in this installation"):
        paper._read_file.__wrapped__()
    module.with_name("PAPER.md").write_text("- **Z** sure\n")
    assert paper._read_file.__wrapped__() == "- **Z** sure\n"
