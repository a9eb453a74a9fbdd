"""`uiat compare`: the table, JSON, and the page of pictures."""

import json

from uiat.cli import main


def test_a_run_against_itself(evaluated_run, tmp_path, capsys, unchecked):
    page, words = tmp_path / "difference.html", ["compare", str(evaluated_run), str(evaluated_run)]
    assert main([*words, "--save", str(page)]) == 0
    assert "60 test images of digits, threat model Linf" in capsys.readouterr().out
    assert "Two models, image by image" in page.read_text()
    assert "alone is right" not in page.read_text()
    assert main([*words, "--json", "--save", str(page)]) == 0, "an earlier page is replaced"
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert [(table["name"], table["only_a"], table["p"]) for table in tables] == [
        (name, 0, 1) for name in ("clean", "fgsm", "worst")
    ]
    other = tmp_path / "notes.html"
    other.write_text("mine")
    assert main([*words, "--save", str(other)]) == 2
    assert "was not written by uiat compare" in capsys.readouterr().err
