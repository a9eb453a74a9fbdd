"""The page and its twin as a whole, and what `uiat report` refuses."""

import json
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

import uiat
from support.run_folders import ACCURACY, make_samples, pages, write_run
from uiat.report import check_out, page, read_files, write_report


def test_the_page_has_every_part(runs, tmp_path):
    html, text = pages(runs, tmp_path / "report.html", samples=make_samples(runs[2]))
    for part in (
        "summary",
        "tradeoff",
        "training",
        "strength",
        "classes",
        "confusion",
        "gallery",
        "universal",
        "differences",
    ):
        assert f'id="h-{part}"' in html, part
    assert "48.00 ± 0.71" in html
    assert "48.00 ± 0.71" in text
    assert html.count('<svg class="chart"') == html.count('role="img"') == 1 + 4 + 1 + 2 + 1
    assert len(re.findall(r"<img [^>]*alt=\"[^\"]+", html)) == html.count("<img") == 3 * 5 + 10
    assert "| objective.name | pgd-at | uiat |" in text
    assert "cat images taken for" in html
    assert "| run | epoch 1 | epoch 2 | epoch 3 | epoch 4 |" in text
    assert "| uiat | 30 | 32.5 | 35 | 37.5 |" in text
    assert "| cat | 1 | 1 | 1 | 22 | 1 | 1 | 1 | 1 | 1 | 1 | 31 |" in text


def test_nothing_is_loaded_from_anywhere(runs, tmp_path):
    html, _ = pages(runs, tmp_path / "report.html", samples=make_samples(runs[2]))
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"#]+)', html))


def test_names_cannot_bring_markup(tmp_path):
    bad = write_run(tmp_path / "a", name="<script>alert(1)</script>|", accuracy=ACCURACY, verdict="<b>bold</b>")
    html, text = pages([bad], tmp_path / "report.html")
    assert "<script>alert" not in html
    assert "<b>bold" not in html
    assert "<script>" not in text
    assert "&lt;script>alert(1)&lt;/script>\\|" in text


def test_a_cut_last_line_of_metrics_is_left_out_and_said(tmp_path):
    run = write_run(tmp_path / "a", epochs=3)
    path = run / "metrics.jsonl"
    path.write_text(path.read_text()[:-40])
    files = read_files(run)
    assert len(files.history) == 2
    assert "the last line of metrics.jsonl is cut off and was left out (line 3)" in files.notes


def test_alarms_are_told(tmp_path):
    run = write_run(tmp_path / "a", epochs=1)
    row = json.loads((run / "metrics.jsonl").read_text()) | {"alarms": ["at chance"]}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert "alarm in epoch 1: at chance" in read_files(run).notes


def test_only_a_report_is_replaced(tmp_path):
    out, run = tmp_path / "report.html", write_run(tmp_path / "a")
    write_report([run], out)
    write_report([run], out)
    (tmp_path / "report.md").write_text("my notes")
    with pytest.raises(uiat.UserError, match=r"report.md exists and was not written by uiat report"):
        write_report([run], out)
    assert (tmp_path / "report.md").read_text() == "my notes"
    (tmp_path / "dir.html").mkdir()
    with pytest.raises(uiat.UserError, match="was not written by uiat report"):
        check_out(tmp_path / "dir.html")


@pytest.mark.parametrize("number", range(1, len(page.PANELS)))
def test_a_panel_that_fails_is_left_out_and_said(runs, tmp_path, monkeypatch, caplog, number):
    def fail(inputs):
        raise ZeroDivisionError("nothing to divide by")

    panels = [fail if at == number else panel for at, panel in enumerate(page.PANELS)]
    monkeypatch.setattr(page, "PANELS", tuple(panels))
    html, _ = pages(runs, tmp_path / "report.html", samples=make_samples(runs[2]))
    assert "48.00 ± 0.71" in html
    assert "the report has no fail: ZeroDivisionError: nothing to divide by" in caplog.text


NASTY = ["<script>alert(1)</script>", "a`<img src=x onerror=alert(1)>`", "x | y", "[a](javascript:b)", "\x1b[2Jcat"]


@pytest.mark.parametrize("name", NASTY)
def test_names_of_classes_fields_and_folders_are_text(runs, tmp_path, name):
    samples = {
        folder: replace(each, classes=(name, *each.classes[1:])) for folder, each in make_samples(runs[2]).items()
    }
    bad = write_run(tmp_path / name.replace("/", "_"), name=name, accuracy=ACCURACY, verdict=name)
    html, text = pages([*runs, bad], tmp_path / "report.html", samples=samples)
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    for document in (html, shown):
        assert "<script>alert" not in document
        assert "<img src=x" not in document
        assert 'href="javascript' not in document
        assert "\x1b" not in document
