"""`uiat analyse` from end to end: files, refusals, and what is said before runs are compared."""

import json
import shutil
import xml.etree.ElementTree as ET

import jaxtyping
import pytest

import uiat
from support import tiny
from uiat import UIAT, Linf, UniversalInverse, UserError, analyse
from uiat.analyse.figures import look
from uiat.analyse.result import compact
from uiat.analyse.study import open_runs
from uiat.cli import main
from uiat.runs.reader import read_files

ATTACK = tiny.attack()
METHODS = {
    "uiat": UIAT(attack=ATTACK, inverse=UniversalInverse(radius=0.1, step_size=0.05)),
    "one-off": UIAT(attack=ATTACK, inverse=UniversalInverse(radius=0.1, step_size=0.05, epoch=1)),
    "pgd-at": uiat.PGDAT(attack=ATTACK),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of two epochs, one of them judged; nobody changes them."""
    folder = tmp_path_factory.mktemp("analyse")
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        for name, objective in METHODS.items():
            uiat.train(tiny.run(objective=objective), run_dir=folder / name)
            accuracy = {"clean": 0.5, "pgd-20": 0.25, "worst": 0.25 if name == "uiat" else 0.125}
            record = {"accuracy": accuracy, "n": 539, "threat": "Linf:0.2"}
            (folder / name / "evaluation.json").write_text(json.dumps(record))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return folder


@pytest.fixture
def ask(capsys, unchecked, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)

    def ask(*words):
        code = main([str(word) for word in words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return ask


def given(study, runs):
    """The runs that a study is tried on."""
    return [runs / name for name in (("one-off", "pgd-at") if study == "one-off" else ("uiat", "pgd-at"))]


@pytest.mark.parametrize("study", analyse.STUDIES)
def test_every_study_writes_its_data_a_figure_and_what_the_numbers_say(study, runs, tmp_path):
    result = analyse.run(study, given(study, runs), out=tmp_path, n=24, attack="pgd-2")
    assert [path.name for path in result.files] == [f"{study}.{ending}" for ending in ("json", "svg", "png", "md")]
    data = json.loads((tmp_path / f"{study}.json").read_text())
    assert data == json.loads(json.dumps(result.data))
    assert (data["study"], data["seed"], data["threat"]) == (study, 0, "Linf:0.2")
    assert data["inputs"]["runs"] == [str(path) for path in given(study, runs)]
    assert {"torch", "uiat", "python", "processor"} <= data["environment"].keys()
    ET.parse(tmp_path / f"{study}.svg")
    assert (tmp_path / f"{study}.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / f"{study}.md").read_text()
    assert result.paragraph in text
    assert "nan" not in result.paragraph.split()
    assert "point" in text or "%" in text or "cosine" in text or "loss" in text


def test_the_same_again_is_written_again_and_anything_else_is_refused(runs, tmp_path):
    first = analyse.run("strength", [runs / "uiat"], out=tmp_path, n=10, attack="pgd-2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = analyse.run("strength", [runs / "uiat"], out=tmp_path, n=10, attack="pgd-2")
    assert first.data["runs"] == again.data["runs"]
    for changed in ({"n": 11}, {"n": 10, "seed": 1}, {"n": 10, "attack": "pgd-3"}):
        with pytest.raises(UserError, match="of other runs or options, and is never overwritten"):
            analyse.run("strength", [runs / "uiat"], out=tmp_path, **{"attack": "pgd-2", **changed})
    with pytest.raises(UserError, match="never overwritten"):
        analyse.run("strength", [runs / "pgd-at"], out=tmp_path, n=10, attack="pgd-2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    analyse.run("overfitting", [runs / "uiat"], out=tmp_path)  # another study has files of its own


def test_a_figure_of_somebody_else_is_kept(runs, tmp_path):
    (tmp_path / "overfitting.png").write_text("mine")
    with pytest.raises(UserError, match=r"overfitting\.png is there without overfitting\.json"):
        analyse.run("overfitting", [runs / "uiat"], out=tmp_path)
    (tmp_path / "overfitting.json").write_text('{"study": "over')
    with pytest.raises(UserError, match="is damaged"):
        analyse.run("overfitting", [runs / "uiat"], out=tmp_path)
    assert (tmp_path / "overfitting.png").read_text() == "mine"


def test_nothing_is_written_unless_a_folder_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert analyse.run("overfitting", [runs / "uiat"]).files == []
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_it_writes(ask, runs, tmp_path):
    code, out, err = ask("analyse", "cost", runs / "uiat", runs / "pgd-at", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert f"written: {tmp_path / 'cost.json'}" in out
    assert json.loads((tmp_path / "cost.json").read_text())["paragraph"] in out
    assert " MB kept" in out


def test_cost_reads_no_data_set(runs, monkeypatch):
    def never(*_, **__):
        raise AssertionError("asked for data")

    monkeypatch.setattr("uiat.analyse.study.open_data", never)
    monkeypatch.setattr("uiat.training.setup.open_data", never)
    (row, _) = analyse.run("cost", [runs / "uiat", runs / "pgd-at"]).data["rows"]
    assert row["passes"] == 12.0  # two steps, two training passes, and one that refines z


def test_one_off_has_rows_for_never_and_for_every_epoch(runs):
    result = analyse.run("one-off", [runs / "uiat", runs / "one-off", runs / "pgd-at"], n=10, attack="pgd-2")
    assert [row[0] for row in result.table[1:]] == ["never", "1", "every epoch"]
    assert "Against refining in every epoch" in result.paragraph
    assert "Against PGD-AT" in result.paragraph


MISTAKES = {
    "study": (["strenght", "uiat"], "unknown study 'strenght'; did you mean 'strength'?"),
    "no run": (["strength"], "the study strength needs one or more RUN folders"),
    "no run of an ablation": (["ablation"], "needs one or more RUN folders, or --train RECIPE"),
    "not a run": (["strength", "nowhere"], "is not a run folder: it has no config.yaml"),
    "twice": (["strength", "uiat", "uiat"], "is given twice"),
    "n": (["strength", "uiat", "--n", "540"], "n 540 is more than the 539 test images of uiat"),
    "n held out": (["one-off", "one-off", "-n", "41"], "n 41 is more than the 40 held-out images"),
    "n of what is to be trained": (["ablation", "--train", "digits-uiat", "-n", "151"], "n 151 is more than the 150"),
    "attack on what is to be trained": (["ablation", "--train", "digits-uiat", "--attack", "fab"], "needs an attack"),
    "attack": (["strength", "uiat", "--attack", "pdg-20"], "did you mean 'pgd-K'"),
    "attack that searches": (["misaligned", "uiat", "--attack", "square"], "needs an attack such as pgd-20"),
    "attack that cannot help": (["confidence-gap", "uiat", "--attack", "apgd-ce"], "needs an attack such as pgd-20"),
    "threat": (["strength", "uiat", "--threat", "Linf:8"], 'did you mean "8/255"'),
    "epsilons": (["strength", "uiat", "--epsilons", "0,8/255,4/255"], "epsilons must ascend"),
    "weights": (["strength", "uiat", "--which", "bset"], "unknown weights 'bset'; did you mean 'best'"),
    "no perturbations": (["inverse-gallery", "pgd-at"], "has no universal perturbations"),
    "not one-off": (["one-off", "uiat"], "needs a run with objective.inverse.epoch set"),
    "train what": (["strength", "--train", "digits-uiat"], "only the study ablation trains a recipe"),
    "train and runs": (["ablation", "uiat", "--train", "digits-uiat"], "leave one out"),
    "recipe": (["ablation", "--train", "digits-uait"], "unknown recipe 'digits-uait'; did you mean 'digits-uiat'"),
    "another method": (["ablation", "--train", "digits-trades"], "and digits-trades is trades"),
    "seeds": (["ablation", "--train", "digits-uiat", "--seeds", "0;1"], "--seeds are whole numbers"),
    "set": (["ablation", "--train", "digits-uiat", "--set", "objective.wieght=1"], "did you mean 'objective.weight'"),
    "set without a value": (["ablation", "--train", "digits-uiat", "--set", "seed"], "--set takes FIELD=VALUE"),
    "set of runs": (["ablation", "uiat", "--set", "objective.weight=1"], "runs that are given are as they are"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(words, says, ask, runs, tmp_path):
    study, *rest = words
    rest = [runs / word if word in METHODS else word for word in rest]
    code, _, err = ask("analyse", study, *rest, "--out", tmp_path / "out")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert says in err
    assert not (tmp_path / "out").exists()


def test_runs_that_lack_what_a_study_needs(ask, runs, tmp_path):
    run = shutil.copytree(runs / "uiat", tmp_path / "run")

    def says(study):
        code, _, err = ask("analyse", study, run, "--out", tmp_path / "out")
        assert code == 2
        assert len(err.splitlines()) == 1
        return err

    (run / "evaluation.json").unlink()
    assert f"has no evaluation.json: run `uiat evaluate {run}` first" in says("cost")
    (run / "evaluation.json").write_text('{"accuracy": {"clean": "many"}}')
    assert "is damaged: evaluate the run again" in says("cost")
    metrics = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(metrics[20:])
    for study in ("overfitting", "ablation"):
        assert "metrics.jsonl is damaged in line 1" in says(study)
    (run / "metrics.jsonl").unlink()
    assert "has no metrics.jsonl: no epoch of it has ended yet" in says("overfitting")
    (run / "best.safetensors").write_bytes(b"no weights")
    assert "is not a readable safetensors file" in says("strength")


def test_a_last_epoch_that_a_kill_has_cut_is_left_out_as_the_report_leaves_it_out(runs, tmp_path):
    run = shutil.copytree(runs / "uiat", tmp_path / "run")
    metrics = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(metrics[:-20])
    data = analyse.run("overfitting", [run], n=10, attack="pgd-2").data
    assert data["runs"]["run"]["epochs"] == [1]
    assert len(read_files(run).history) == 1


def test_other_threat_models_are_compared_only_after_saying_so(runs, tmp_path):
    other = tiny.run(objective=uiat.PGDAT(attack=uiat.PGD(threat=Linf(0.1), step_size=0.05, steps=1)), epochs=1)
    uiat.train(other, run_dir=tmp_path / "weak")
    both = [runs / "uiat", tmp_path / "weak"]
    said = analyse.run("strength", both, n=10, attack="pgd-2").paragraph
    assert said.startswith("Careful: the runs were trained for different threat models (Linf:0.2 and Linf:0.1)")
    assert "attacked under Linf:0.2 here" in said
    asked = analyse.run("strength", both, n=10, attack="pgd-2", threat="L2:0.5")
    assert asked.data["threat"] == "L2:0.5"
    assert not analyse.run("strength", [runs / "uiat", runs / "pgd-at"], n=10, attack="pgd-2").data["notes"]


def test_other_data_sets_are_compared_only_after_saying_so(runs):
    from dataclasses import replace

    from uiat.analyse.study import Context, StudyOptions

    first, second = open_runs([runs / "uiat", runs / "pgd-at"])
    foreign = replace(second, run=replace(second.run, data=uiat.Data(name="mnist")))
    (note,) = Context([first, foreign], StudyOptions()).notes
    assert note.startswith("Careful: the runs are of different data sets (digits and mnist)")


def test_runs_are_named_by_their_folders_and_told_apart(runs, tmp_path):
    copy = shutil.copytree(runs / "uiat", tmp_path / "uiat")
    assert [s.label for s in open_runs([runs / "uiat", runs / "pgd-at"])] == ["uiat", "pgd-at"]
    labels = [s.label for s in open_runs([runs / "uiat", copy])]
    assert labels == [f"{runs.name}/uiat", f"{tmp_path.name}/uiat"]


def test_the_help_lists_every_study_with_defaults_and_units(ask):
    code, out, _ = ask("analyse", "--help")
    words = "".join(out.split())  # lines are broken at hyphens too
    assert code == 0
    for study in analyse.STUDIES.values():
        assert f"{study.name}: {study.about}".replace(" ", "") in words
    for text in ("pgd-20", "in units of the image range [0, 1]", "[default: (1000, or all)", "[default: analysis]"):
        assert text.replace(" ", "") in words


def test_numbers_in_a_list_stay_on_one_line():
    value = {"a": [0.5, None, "x, y"], "b": [[1, 2], [3, 4]], "c": {"d": []}}
    assert json.loads(compact(value)) == value
    assert '"a": [0.5, null, "x, y"]' in compact(value)


def test_many_runs_are_told_apart_in_a_figure():
    marks = [(one["color"], one["marker"]) for one in map(look, range(40))]
    assert len(set(marks)) == 40
