"""Sections: what both templates loop over."""

from markupsafe import Markup

from uiat.report import page
from uiat.report.inputs import Inputs
from uiat.report.section import Card, Cell, Column, Figure, Listing, Picture, Section, Table, Values

PICTURE = Picture("data:,", "a cat", "cat")


def panel(inputs):
    """A panel with one of everything, as somebody may add it."""
    return Section(
        "New panel",
        anchor="new",
        warnings=["mind this"],
        intro="about the drawing",
        tables=[Table([Column("run"), Column("number", number=True)], [[Cell("a|b"), Cell("1", 1.0)]], "numbers")],
        listing=Listing([("term", "said of it")], code=True),
        note="small print",
        markdown_note="small print of Markdown",
        figures=[Figure("drawn", Markup("<svg></svg>"), Values("drawn", ["x"], [["7"]]))],
        cards=[Card("image", "3", [PICTURE])],
        pictures=[PICTURE],
        parts=[Section("Part", listing=Listing(["one", "two"])), Section("Nothing in it")],
    )


def test_a_new_panel_is_a_function_and_an_entry_in_the_list(monkeypatch):
    monkeypatch.setattr(page, "PANELS", (*page.PANELS, panel))
    facts = page.describe(Inputs([])) | {"twin": "a.md", "page": "a.html"}
    html, text = page.render("report.html.j2", facts), page.render("report.md.j2", facts)
    assert '<a href="#new">New panel</a>' in html
    for part in (
        "New panel</h2>",
        "mind this",
        "about the drawing",
        "a|b",
        "<code>term</code>",
        "small print<",
        "drawn",
    ):
        assert html.count(part) >= 1, part
    assert html.count('<img src="data:,"') == 2
    assert "<h3>Part</h3>" in html
    for part in ("## New panel", "- mind this", "| a\\|b | 1 |", "- `term`: said of it", "small print of Markdown"):
        assert f"{part}\n" in text, part
    assert "drawn:\n\n| x |\n| --- |\n| 7 |\n" in text
    assert "Part:\n\n- one\n- two\n" in text
    for page_ in (html, text):
        assert "Nothing in it" not in page_
    assert "about the drawing" not in text  # where there is no drawing


def test_what_is_drawn_alone_is_no_part_of_the_markdown():
    for drawn in (Section("a", cards=[Card("", "", [PICTURE])]), Section("a", figures=[Figure("b", Markup("<svg/>"))])):
        assert not drawn.is_empty
        assert not drawn.is_in_markdown
        nested = Section("c", parts=[drawn])
        assert (nested.is_empty, nested.is_in_markdown) == (False, False)
    assert Section("a", intro="alone", legend=[(Markup(), "x")], listing=Listing([])).is_empty


def test_a_wide_table_is_cut_for_paper():
    columns = [Column(name) for name in ("field", *"abcdef")]
    row = [Cell(str(i)) for i in range(7)]
    first, second = Table(columns, [row], "t", style="settings").sheets
    assert [[cell.text for cell in sheet.rows[0]] for sheet in (first, second)] == [list("012345"), list("06")]
    assert Table(columns[:6], [row[:6]], "t", style="settings").sheets == []
    assert Table(columns, [row], "t").sheets == []
