"""What the documentation site adds to the documents, without building it: errors, outputs, tables, its navigation."""

import re

import errors
import executed
import make_pages
import pytest

from support.paths import ROOT

NAV = re.compile(r"^ +- (?:.*: )?(?P<page>[\w/-]+\.md)$", re.M)


def test_each_message_of_the_troubleshooting_page_is_one_of_the_package():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = [match[2].strip() for match in re.finditer(r"^\| (`{1,2})(.+?)\1 \|", text, re.M)]
    said = {message for area in errors.areas() for found in errors.of_area(area).values() for message in found}
    assert len(quoted) > 30
    assert set(quoted) <= said
    page = errors.insert(text)
    assert not errors.MARK.search(page)
    assert all(message in page for message in said), "a message is on the page neither in a table nor in a list"


def test_a_part_without_a_section_is_named():
    with pytest.raises(ValueError, match=r"no .*attacks.*training"):
        errors.insert("<!-- errors: data models -->")


def test_every_page_is_in_the_table_of_pages():
    there = {"index.md", *make_pages.find_pages().values()}
    there |= {f"reference/{name}.md" for name in make_pages.reference()}
    listed = {match["page"] for match in NAV.finditer((ROOT / "mkdocs.yml").read_text())}
    assert there - {"code-of-conduct.md", "reference/index.md"} == listed - {"reference/index.md"}


def test_the_start_page_has_the_picture_and_the_tables_of_the_results():
    page = make_pages.start_page(make_pages.find_pages())
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert "<svg" in page
    assert "<!--" not in page
    rows = re.findall(r"^\| UIAT \| 3 \|.*$", results, re.M)
    assert len(rows) == 2
    assert all(row in page for row in rows)
    assert "](results/accuracy.md#digits-linf-02)" in page


def test_outputs_are_made_once_and_again_when_the_code_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(executed, "CACHE", tmp_path / "outputs")
    monkeypatch.setattr(executed, "source_sum", lambda: "as it is")
    text = (
        "<!-- test: run a -->\n```console\n$ echo 1 > file; echo said\nold output\n$ cat file\n```\n"
        "<!-- test: run a -->\n```bash\ncat file; date +%N\n```\n"
    )
    page = executed.tutorial(text, {})
    assert "```console\n$ echo 1 > file; echo said\nsaid\n$ cat file\n1\n```" in page
    assert "old output" not in page
    assert "<!--" not in page
    assert executed.tutorial(text, {}) == page  # the nanoseconds are those of the first time
    assert executed.tutorial(text.replace("%N", "%N%N"), {}) != page


def test_a_failing_example_ends_the_build_with_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setattr(executed, "CACHE", tmp_path / "outputs")
    with pytest.raises(SystemExit, match=r"(?s)fails \(3\).*why"):
        executed.tutorial("<!-- test: run -->\n```bash\necho why; exit 3\n```\n", {})


def test_cells_of_a_notebook_are_shown_with_their_outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(executed, "CACHE", tmp_path / "outputs")
    text = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\na = 2\n\n# %%\nprint(a)\n"
    page = executed.notebook(text, {})
    assert page.startswith("# Title\n\nText.\n")
    assert re.search(r"print\(a\)\n```\n\n```\{ \.text \.output \}\n2\n```", page)


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("docs/notebooks/*.py")), ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_title_and_is_all_cells(notebook, tmp_path):
    text = notebook.read_text()
    kinds = [kind for kind, _ in executed.cells(text)]
    assert text.startswith("# %% [markdown]\n# # ")
    assert kinds.count("code") > 3
    jupytext = pytest.importorskip("jupytext")
    converted = jupytext.reads(text, fmt="py:percent")
    assert [cell.cell_type for cell in converted.cells] == kinds
