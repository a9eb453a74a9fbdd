"""Studies from end to end: their files, and what is said before runs are compared."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib import import_module

import pytest

import uiat
from support.paths import SRC
from uiat import UserError, analyse
from uiat.analyse.result import check_free
from uiat.analyse.study import DECIDING, Context, StudyOptions, open_runs
from uiat.runs.run_files import read_files
from uiat.system import atomic_folder

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


def read_by(study, **options):
    """Return those of some options that a study reads."""
    return {name: value for name, value in options.items() if name in analyse.STUDIES[study].reads}


def given(study, trained_runs):
    """Return the runs that a study is tried on."""
    return [trained_runs / name for name in (("one-off", "pgd-at") if study == "one-off" else ("uiat", "pgd-at"))]


@pytest.mark.parametrize("study", analyse.STUDIES)
def test_every_study_writes_its_data_a_figure_and_what_the_numbers_say(study, trained_runs, tmp_path):
    result = analyse.run(study, given(study, trained_runs), out=tmp_path, **read_by(study, n=24, attack="pgd-2"))
    assert [path.name for path in result.files] == [
        f"{study}.{ending}" for ending in ("json", "svg", "png", "pdf", "md")
    ]
    data = json.loads((tmp_path / f"{study}.json").read_text())
    assert data == json.loads(json.dumps(result.data))
    reads = analyse.STUDIES[study].reads
    assert (data["study"], data["seed"]) == (study, 0 if "seed" in reads else None)
    assert data["threat"] == ("Linf:0.2" if "threat" in reads or study == "cost" else None)
    assert set(data["inputs"]) == {"runs", "weights", "recipe", *reads}
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
    data = analyse.run("overfitting", [run], n=10).data
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


@pytest.mark.parametrize("study", analyse.STUDIES)
def test_an_option_that_a_study_does_not_read_is_refused(study, trained_runs):
    values = {"n": 9, "seed": 0, "threat": "Linf:0.1", "attack": "pgd-20", "epsilons": "0,0.1", "which": "best"}
    assert set(values) == set(DECIDING)
    for name in set(values) - set(analyse.STUDIES[study].reads):
        with pytest.raises(UserError, match=f"the study {study} does not read {name}, but"):
            analyse.run(study, given(study, trained_runs), **{name: values[name]})
    with pytest.raises(UserError, match="--set, --seeds and --runs are for ablation --train"):
        analyse.run(study, given(study, trained_runs), seeds=(3,))


@pytest.mark.parametrize("study", analyse.STUDIES)
def test_what_a_study_is_said_to_read_is_what_its_code_reads(study, trained_runs):
    seen = set()

    class Watched(StudyOptions):
        def __getattribute__(self, name):
            seen.add(name)
            return super().__getattribute__(name)

    options = Watched(**read_by(study, n=8, attack="pgd-1", epsilons="0,0.1"))
    chosen, context = analyse.STUDIES[study], Context(open_runs(given(study, trained_runs)), StudyOptions())
    context.options, seen = options, set()
    chosen.measure(context)
    assert seen & set(DECIDING) - {"threat"} == set(chosen.reads) - {"threat"}
    assert ("threat" in context.__dict__) is ("threat" in chosen.reads)


def test_the_small_print_names_what_was_read(trained_runs):
    said = analyse.run("alignment", [trained_runs / "uiat"], n=9).paragraph
    assert said.endswith("; threat model Linf 0.2; seed 0.)")
    assert analyse.run("inverse-gallery", [trained_runs / "uiat"], n=9).paragraph.endswith(": 9 test images.)")


def test_another_run_at_the_same_path_is_another_input(trained_runs, tmp_path, monkeypatch):
    for place, name in (("one", "uiat"), ("two", "pgd-at")):
        shutil.copytree(trained_runs / name, tmp_path / place / "x")
        monkeypatch.chdir(tmp_path / place)
        if place == "one":
            analyse.run("strength", ["x"], out=tmp_path, **PGD_2)
            before = (tmp_path / "strength.json").read_bytes()
    with pytest.raises(UserError, match="of other runs or options, and is never overwritten"):
        analyse.run("strength", ["x"], out=tmp_path, **PGD_2)
    assert (tmp_path / "strength.json").read_bytes() == before
    monkeypatch.chdir(tmp_path / "one")
    analyse.run("strength", ["x"], out=tmp_path, **PGD_2)  # the same run is written again


def test_files_of_earlier_versions_are_told_by_the_paths_and_options_in_them(tmp_path):
    old = {"runs": ["x"], "n": None, "seed": 0, "threat": None, "attack": "pgd-20", "epsilons": None, "recipe": None}
    (tmp_path / "alignment.json").write_text(json.dumps({"study": "alignment", "inputs": old}))
    now = {"runs": ["x"], "weights": {"x": {"best": "1"}}, "n": None, "seed": 0, "threat": None, "recipe": None}
    check_free(tmp_path, "alignment", now)
    for changed in ({"runs": ["y"]}, {"seed": 1}):
        with pytest.raises(UserError, match="of other runs or options"):
            check_free(tmp_path, "alignment", now | changed)


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_measured(trained_runs, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    measured = replace(analyse.STUDIES["strength"], measure=lambda context: pytest.fail("it was measured"))
    monkeypatch.setitem(analyse.STUDIES, "strength", measured)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken" / "strength.svg").mkdir(parents=True)
    (tmp_path / "taken" / "strength.json").write_text("{}")
    runs = [trained_runs / "uiat"]
    for name, says in {
        "file": "file is not a folder; choose another --out",
        "taken": "strength.svg: it is a folder",
    }.items():
        with pytest.raises(UserError, match=says):
            analyse.run("strength", runs, out=tmp_path / name, **PGD_2)
    monkeypatch.setattr(atomic_folder, "create_file", refuse)
    with pytest.raises(UserError, match=r"strength.json: Permission denied; choose another --out$"):
        analyse.run("strength", runs, out=tmp_path, **PGD_2)
