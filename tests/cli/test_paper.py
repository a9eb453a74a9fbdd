"""PAPER.md and the code say the same: every symbol exists, names its source, and has a test and a recipe."""

import importlib

import pytest

from support.paths import ROOT
from uiat import recipes
from uiat.cli.paper import MARKS, ROWS, markdown


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.statement[:40])
def test_each_row_points_at_what_exists(row):
    module, _, name = row.symbol.rpartition(".")
    symbol = getattr(importlib.import_module(module), name)
    assert symbol.__doc__
    assert any(source in symbol.__doc__ for source in ("UIAT", "Madry", "Wong", "METHOD", "CVPR 2023"))
    assert row.mark in MARKS
    file, _, test = row.test.partition("::")
    assert f"\ndef {test}(" in (ROOT / file).read_text()
    assert row.recipe in recipes.names()


def test_the_table_in_paper_md_is_the_one_in_the_code():
    assert markdown() in (ROOT / "PAPER.md").read_text()
