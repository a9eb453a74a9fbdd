"""Studies from end to end: their files, and what is said before runs are compared."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from importlib import import_module

import pytest

import uiat
from support.paths import SRC
from uiat import UserError, analyse
from uiat.runs.run_files import read_files

PGD_2 = {"n": 10, "attack": "pgd-2"}


def test_a_study_is_a_module_of_its_name_with_the_same_names_in_each():
    modules = {file.stem for file in (SRC / "uiat" / "analyse" / "studies").glob("*.py")}
    assert modules == {name.replace("-", "_") for name in analyse.STUDIES} | {"__init__", "ablation_rows"}
    for name, study in analyse.STUDIES.items():
        module = import_module(f"uiat.analyse.studies.{name.replace('-', '_')}")
        assert module.STUDY is study
        assert study.name == name
        assert (module.measure, module.sentences, module.draw) == (study.measure, study.sentences, study.draw)
        assert getattr(module, "table", None) is study.table


def test_no_study_imports_another():
    """What studies share is in `uiat.analyse` itself, so that a study can be read, and taken away, alone."""
    for file in (SRC / "uiat" / "analyse" / "studies").glob("*.py"):
        imported = set(re.findall(r"from uiat\.analyse\.studies\.(\w+)", file.read_text()))
        assert imported <= {"ablation_rows"}, file.name


def given(study, trained_runs):
    """Return the runs that a study is tried on."""
    return [trained_runs / name for name in (("one-off", "pgd-at") if study == "one-off" else ("uiat", "pgd-at"))]


@pytest.mark.parametrize("study", analyse.STUDIES)
def test_every_study_writes_its_data_a_figure_and_what_the_numbers_say(study, trained_runs, tmp_path):
    result = analyse.run(study, given(study, trained_runs), out=tmp_path, n=24, attack="pgd-2")
    assert [path.name for path in result.files] == [
        f"{study}.{ending}" for ending in ("json", "svg", "png", "pdf", "md")
    ]
    data = json.loads((tmp_path / f"{study}.json").read_text())
    assert data == json.loads(json.dumps(result.data))
    assert (data["study"], data["seed"], data["threat"]) == (study, 0, "Linf:0.2")
    assert data["inputs"]["runs"] == [str(path) for path in given(study, trained_runs)]
    assert {"torch", "uiat", "python", "processor"} <= data["environment"].keys()
    ET.parse(tmp_path / f"{study}.svg")
    assert (tmp_path / f"{study}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{study}.pdf").read_bytes().startswith(b"%PDF")
    text = (tmp_path / f"{study}.md").read_text()
    assert result.paragraph in text
    assert "nan" not in result.paragraph.split()
    assert "point" in text or "%" in text or "cosine" in text or "loss" in text


def test_the_same_again_is_written_again_and_anything_else_is_refused(trained_runs, tmp_path):
    first = analyse.run("strength", [trained_runs / "uiat"], out=tmp_path, **PGD_2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = analyse.run("strength", [trained_runs / "uiat"], out=tmp_path, **PGD_2)
    assert first.data["runs"] == again.data["runs"]
    for changed in ({"n": 11}, {"n": 10, "seed": 1}, {"n": 10, "attack": "pgd-3"}):
        with pytest.raises(UserError, match="of other runs or options, and is never overwritten"):
            analyse.run("strength", [trained_runs / "uiat"], out=tmp_path, **{"attack": "pgd-2", **changed})
    with pytest.raises(UserError, match="never overwritten"):
        analyse.run("strength", [trained_runs / "pgd-at"], out=tmp_path, **PGD_2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    analyse.run("overfitting", [trained_runs / "uiat"], out=tmp_path)  # another study has files of its own


def test_a_figure_of_somebody_else_is_kept(trained_runs, tmp_path):
    (tmp_path / "overfitting.png").write_text("mine")
    with pytest.raises(UserError, match=r"overfitting\.png is there without overfitting\.json"):
        analyse.run("overfitting", [trained_runs / "uiat"], out=tmp_path)
    (tmp_path / "overfitting.json").write_text('{"study": "over')
    with pytest.raises(UserError, match="is damaged"):
        analyse.run("overfitting", [trained_runs / "uiat"], out=tmp_path)
    assert (tmp_path / "overfitting.png").read_text() == "mine"


def test_nothing_is_written_unless_a_folder_is_named(trained_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert analyse.run("overfitting", [trained_runs / "uiat"]).files == []
    assert list(tmp_path.iterdir()) == []


def test_a_last_epoch_that_a_kill_has_cut_is_left_out_as_the_report_leaves_it_out(trained_runs, tmp_path):
    run = shutil.copytree(trained_runs / "uiat", tmp_path / "run")
    metrics = (run / "metrics.jsonl").read_text()
    (run / "manifest.json").unlink()  # as in folders of version 0.1
    (run / "metrics.jsonl").write_text(metrics[:-20])
    data = analyse.run("overfitting", [run], **PGD_2).data
    assert data["runs"]["run"]["epochs"] == [1]
    assert len(read_files(run).history) == 1


def test_other_threat_models_are_compared_only_after_saying_so(trained_runs, tmp_path):
    run = uiat.load_config((trained_runs / "pgd-at" / "config.yaml").read_text())
    weak = uiat.train(
        uiat.override(run, [("objective.attack.threat.epsilon", "0.1")]), run_dir=tmp_path / "weak"
    ).folder
    both = [trained_runs / "uiat", weak]
    said = analyse.run("strength", both, **PGD_2).paragraph
    assert said.startswith("Careful: the runs were trained for different threat models (Linf 0.2 and Linf 0.1)")
    assert "attacked under Linf 0.2 here" in said
    chosen = analyse.run("strength", both, **PGD_2, threat="L2:0.5")
    assert chosen.data["threat"] == "L2:0.5"
    assert not analyse.run("strength", [trained_runs / "uiat", trained_runs / "pgd-at"], **PGD_2).data["notes"]


def test_the_width_is_of_the_figure_alone_and_the_numbers_stay_those_of_the_same_inputs(trained_runs, tmp_path):
    runs = [trained_runs / "uiat"]
    first = analyse.run("overfitting", runs, out=tmp_path)
    usual = (tmp_path / "overfitting.svg").read_text()
    again = analyse.run("overfitting", runs, out=tmp_path, width="one")
    assert first.data["runs"] == again.data["runs"]
    assert 'width="374.4pt"' in usual  # 5.2 inches
    assert 'width="237.6pt"' in (tmp_path / "overfitting.svg").read_text()
    with pytest.raises(UserError, match="did you mean 'two'"):
        analyse.run("overfitting", runs, width="tow")
