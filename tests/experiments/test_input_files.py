"""The files that an evaluation reads, as its options and the settings of its runs name them."""

from pathlib import Path

import pytest

from uiat.experiments.input_files import file_of, list_inputs
from uiat.experiments.options import EvaluateOptions


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("npz:a b.npz", Path("a b.npz")),
        ("~/net.py:make", Path.home() / "net.py"),
        ("generated.npz", Path("generated.npz")),
        ("../weights/net", Path("../weights/net")),
        ("digits", None),
        ("pgd-20", None),
    ],
)
def test_names_of_files(name, file):
    assert file_of(name) == file


def test_options_and_settings_are_listed_and_no_code_is_imported(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise RuntimeError")
    settings = run / "config.yaml"
    settings.write_text(settings.read_text().replace("extra_teacher: null", "extra_teacher: runs/teacher"))
    options = EvaluateOptions(
        run=run, weights=Path("w"), data="package.module:images", attacks="pgd-2,mine.py:far", transfer=Path("missing")
    )
    found = list_inputs(options)
    assert ("--weights", Path("w")) in found
    assert ("--attacks", Path("mine.py")) in found
    assert (f"data.extra_teacher of {run}", Path("runs/teacher")) in found
    assert not any(path.is_file() for _, path in found)


def test_settings_that_cannot_be_read_are_for_whoever_opens_the_run(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [")
    assert list_inputs(EvaluateOptions(run=tmp_path)) == []
