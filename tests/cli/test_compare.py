"""`uiat compare`: the table, JSON, and the page of pictures."""

import json

import pytest

from uiat import UserError
from uiat.cli import main
from uiat.experiments.compare import Comparison, Fourfold
from uiat.experiments.compare_page import write_page


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


def test_images_that_the_set_does_not_have_are_one_line(evaluated_run, tmp_path):
    tables = [Fourfold("worst", 0, 1, 0, 0)]
    names = {"a": "a", "b": "b", "data": "digits", "threat": "Linf 8/255"}
    found = Comparison(**names, n=1, tables=tables, broken=[("", "fgsm")], index=[10**6])
    with pytest.raises(UserError, match="digits has 539 test images, and an evaluation names image 1000000"):
        write_page(found, evaluated_run, tmp_path / "page.html")
