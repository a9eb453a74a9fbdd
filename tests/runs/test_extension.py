"""A run that has ended gets more epochs where its schedule allows it, and a sentence where not."""

import shutil

import pytest

import uiat
from support import tiny
from support.commands import ask  # noqa: F401  a fixture
from uiat import UserError
from uiat.runs.extension import extend_run
from uiat.runs.folder import make_folder
from uiat.system.manifest import update_manifest

WORDS = ["digits-standard", "model.width=4", "data.subset=96", "optimisation.average=ema", "validation.steps=1"]


@pytest.mark.usefixtures("unchecked")
def test_an_extended_run_is_one_that_was_longer_from_the_start(ask, tmp_path):  # noqa: F811
    long, short = tmp_path / "long", tmp_path / "short"
    piecewise = [*WORDS, "optimisation.schedule=piecewise", "optimisation.milestones=2"]
    assert ask("train", *piecewise, "optimisation.epochs=3", "--run-dir", long)[0] == 0
    assert ask("train", *piecewise, "optimisation.epochs=1", "--run-dir", short)[0] == 0
    code, _, err = ask("train", "--resume", short, "optimisation.epochs=1")
    assert (code, "to extend it, optimisation.epochs has to be more" in err) == (2, True)
    assert ask("train", "--resume", short, "optimisation.epochs=3")[0] == 0
    assert tiny.differences(long, short) == []
    assert "nothing is left to train" in ask("train", "--resume", short)[1]
    (short / "checkpoint.safetensors").unlink()
    with pytest.raises(UserError, match="is not there to go on from"):
        extend_run(short, 5)


@pytest.mark.usefixtures("unchecked")
def test_a_run_whose_schedule_ends_with_it_is_another_run(ask, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    assert ask("train", *WORDS, "optimisation.epochs=1", "--run-dir", run)[0] == 0
    before = shutil.copytree(run, tmp_path / "before")
    code, _, err = ask("train", "--resume", run, "optimisation.epochs=2")
    assert code == 2
    assert "cannot be extended: its schedule, onecycle, ends with the run" in err
    assert err.count("\n") == 1
    assert (run / "config.yaml").read_bytes() == (before / "config.yaml").read_bytes()
    code, _, err = ask("train", "--resume", run, "seed=3")
    assert (code, "optimisation.epochs=N alone extends it" in err) == (2, True)


@pytest.mark.parametrize("written", [{"optimisation": 3}, {}, {"optimisation": {"epochs": "two"}}])
def test_a_manifest_without_the_settings_of_a_run_is_named(tmp_path, written):
    make_folder(uiat.Run(), tmp_path / "run")
    update_manifest(tmp_path / "run", settings=written)
    with pytest.raises(UserError, match=r"manifest\.json is damaged: it does not hold the settings of a run"):
        extend_run(tmp_path / "run", 99)
