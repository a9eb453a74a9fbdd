"""An objective kept in a file of the user's own goes the whole way; its folder runs nothing unless that is allowed."""

import json
import os
from pathlib import Path

import pytest

import uiat
from support.commands import ask  # noqa: F401 - a fixture
from support.objectives import write_objective
from support.tiny import DROPOUT_MODEL, Killed, Killer
from uiat import UserError
from uiat.runs.folder import make_folder
from uiat.runs.own_files import check_own_code
from uiat.runs.settings import read_evaluated, read_plain, read_run
from uiat.system.manifest import update_manifest
from uiat.system.tensor_files import read_tensors

pytestmark = pytest.mark.usefixtures("unchecked")
NAME = "mine.py:LogitPairing"
TINY = ["model.width=4", "optimisation.epochs=2", "objective.attack.steps=2", "validation.steps=1", "data.subset=200"]
OWN = [f"objective.name={NAME}", *TINY]


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_objective(Path("mine.py"))


@pytest.fixture
def settings():
    return uiat.override(uiat.recipes.get("digits-pgd-at"), [tuple(word.split("=")) for word in OWN])


def weights(folder):
    return {which: read_tensors(Path(folder) / f"{which}.safetensors")[0] for which in ("best", "last")}


def assert_same(one, other):
    for which in ("best", "last"):
        assert one[which].keys() == other[which].keys()
        assert all((one[which][name] == other[which][name]).all() for name in one[which])


def test_it_is_trained_killed_resumed_evaluated_and_shown_from_the_command_line(ask, settings):  # noqa: F811
    assert ask("train", "digits-pgd-at", *OWN, "--run-dir", "whole")[0] == 0
    with pytest.raises(Killed):
        uiat.train(settings, run_dir="killed", listener=Killer(5))
    code, _, err = ask("train", "--resume", "killed")
    assert (code, f"objective.name is code, '{NAME}': allow it with own_code=True (--own-code)" in err) == (2, True)
    assert ask("train", "--resume", "killed", "--own-code")[0] == 0
    assert_same(weights("whole"), weights("killed"))
    assert read_run(Path("whole"), own_code=True) == settings

    Path("mine.py").unlink()  # what reads weights and settings needs no code of the objective
    assert ask("evaluate", "whole", "--attacks", "fgsm", "--n", "40")[0] == 0
    assert f"objective                 {NAME}" in ask("show", "whole")[1]
    assert ask("report", "whole", "--out", "page.html")[0] == 0
    assert "FGSM" in Path("page.md").read_text().upper()


def test_a_file_trains_it_only_where_code_is_allowed(ask):  # noqa: F811
    lines = [
        "objective:",
        f"  name: {NAME}",
        "  attack: {steps: 1}",
        "model: {width: 4}",
        "data: {subset: 100, batch_size: 50}",
    ]
    Path("run.yaml").write_text("\n".join([*lines, "optimisation: {epochs: 1}", ""]))
    words = ["train", "--config", "run.yaml", "--run-dir", "run"]
    code, _, err = ask(*words)
    assert (code, "run.yaml" in err, "allow it with --own-code" in err) == (2, True, True)
    assert not Path("run").exists()
    assert ask(*words, "--own-code")[0] == 0
    assert read_plain(Path("run"))["objective"]["name"] == NAME


def test_it_is_swept_over_its_field_and_costed(ask):  # noqa: F811
    words = ["sweep", "digits-pgd-at", *OWN, "optimisation.epochs=1", "objective.weight=0.1,1", "--out", "grid"]
    words = [*(word for word in words if word != "optimisation.epochs=2"), "evaluation.attacks=fgsm", "evaluation.n=20"]
    assert ask(*words)[0] == 0
    rows = json.loads(Path("grid/sweep.json").read_text())["runs"]
    assert [(row["settings"]["objective.weight"], row["status"]) for row in rows] == [("0.1", "done"), ("1", "done")]
    assert ask(*words)[0] == 0  # nothing is left to do
    write_objective(Path("mine.py"), more="# changed")
    code, _, err = ask(*words)
    assert (code, "mine.py has changed since grid/" in err) == (2, True)
    assert ask("cost", "digits-pgd-at", *OWN, "--steps", "1")[0] == 0


def test_the_ablation_changes_its_fields_one_at_a_time(ask):  # noqa: F811
    ended = [word for word in OWN if "epochs" not in word]
    words = ["ablation", "--train", "digits-pgd-at", *ended, "optimisation.epochs=1", "--seeds", "0", "--n", "20"]
    assert ask("analyse", *words, "--attack", "fgsm")[0] == 0
    rows = json.loads(Path("analysis/ablation.json").read_text())
    assert rows["base"] == "LogitPairing"
    assert list(rows["rows"]) == ["LogitPairing", "pgd-at", "trades", "weight 0", "share 0", "radius 0"]
    assert not rows["failed"]
    folders = [Path("analysis/runs") / f"{name}-seed0" for name in ("LogitPairing", "weight-0", "pgd-at")]
    assert ask("analyse", "ablation", *folders, "--out", "again", "--n", "20", "--attack", "fgsm")[0] == 0
    assert list(json.loads(Path("again/ablation.json").read_text())["rows"]) == [NAME, "objective.weight=0.0", "pgd-at"]


def test_a_changed_file_is_refused_by_both_names_until_told_otherwise(settings):
    uiat.train(settings, run_dir="run")
    kept = Path("run/own-code/mine.py").read_text()
    assert kept == Path("mine.py").read_text()
    write_objective(Path("mine.py"), more="# changed")
    with pytest.raises(UserError, match=r"mine\.py has changed since run began with it \(as run/own-code/mine\.py\)"):
        uiat.resume("run", own_code=True)
    assert uiat.resume("run", own_code="changed").history
    Path("mine.py").unlink()
    with pytest.raises(UserError, match=r"mine\.py, which run names, is not there: put its copy run/own-code/mine\.py"):
        uiat.resume("run", own_code=True)
    Path("mine.py").write_text(kept)
    assert uiat.resume("run", own_code=True).history


def test_a_changed_model_is_refused_in_evaluation(ask, settings):  # noqa: F811
    Path("net.py").write_text(DROPOUT_MODEL)
    run = uiat.override(settings, [("model.name", "net.py:net"), ("objective.name", "standard")])
    uiat.train(run, run_dir="run")
    words = ["evaluate", "run", "--threat", "Linf:0.1", "--attacks", "fgsm", "--n", "20"]
    assert ask(*words)[0] == 2
    assert ask(*words, "--own-code")[0] == 0
    Path("net.py").write_text(DROPOUT_MODEL.replace("0.3", "0.2"))
    code, _, err = ask(*words, "--own-code")
    assert (code, "net.py has changed since run began with it (as run/own-code/net.py)" in err) == (2, True)
    assert ask(*words, "--changed-code")[0] == 0


@pytest.mark.parametrize("has_manifest", [True, False])
def test_code_that_no_manifest_lists_is_refused_or_warned_of(settings, has_manifest, caplog):
    folder = make_folder(settings, "run")
    if has_manifest:
        update_manifest(folder, **{"own-code": {}})
        with pytest.raises(
            UserError, match=r"mine\.py is unchecked: run/manifest\.json has no entry for 'mine\.py:Logit"
        ):
            read_run(folder, own_code=True)
    else:
        (folder / "manifest.json").unlink()
        assert read_run(folder, own_code=True) == settings
        assert "mine.py runs unchecked: run has no manifest.json" in caplog.text
    assert read_run(folder, own_code="changed") == settings
    check_own_code(folder, "missing.py:net", allowed=True)  # of a file that is not there its import speaks


def test_a_manifest_that_is_a_pipe_does_not_count_as_missing(settings):
    folder = make_folder(settings, "run")
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        check_own_code(folder, NAME, allowed=True)


def test_two_files_of_one_name_are_both_kept(settings):
    for folder, text in (("one", "import torch\ndef net(**_):\n    return torch.nn.Linear(1, 1)\n"), ("two", None)):
        Path(folder).mkdir()
        Path(folder, "mine.py").write_text(text or Path("mine.py").read_text())
    names = [("model.name", "one/mine.py:net"), ("objective.name", "two/mine.py:LogitPairing")]
    folder = make_folder(uiat.override(settings, names), "run")
    assert sorted(path.name for path in (folder / "own-code").iterdir()) == ["2-mine.py", "mine.py"]
    for _, name in names:
        check_own_code(folder, name, allowed=True)


def test_a_threat_model_that_only_its_code_knows_is_written_down():
    text = Path("mine.py").read_text().replace("return self.attack.threat", 'return uiat.L2("0.5")')
    Path("mine.py").write_text(text)
    run = uiat.override(uiat.Run(), [tuple(word.split("=")) for word in OWN])
    assert run.evaluation.threat is None
    uiat.train(run, run_dir="run")
    assert read_evaluated(Path("run"))[1] == uiat.L2(0.5)
    assert uiat.load("run").threat == uiat.L2(0.5)


@pytest.mark.parametrize("edit", [lambda path: path.write_text("# harmless"), Path.unlink])
def test_a_copy_that_is_not_the_one_that_was_kept_is_noticed(ask, settings, edit):  # noqa: F811
    folder = make_folder(settings, "run")
    edit(folder / "own-code" / "mine.py")
    with pytest.raises(UserError, match=r"run/own-code/mine\.py is (missing|not the copy that was kept here)"):
        check_own_code(folder, NAME, allowed=True)
    check_own_code(folder, NAME, allowed="changed")
    code, _, err = ask("show", "run")
    assert (code, "run/own-code/mine.py is" in err) == (2, True)
