"""Runs under study, and what is said before they are compared."""

import shutil
from dataclasses import replace

import pytest
import torch

import uiat
from support.run_folders import as_version_1
from uiat.analyse.study import Context, StudyOptions, kept_weights, open_runs


def test_other_data_sets_are_compared_only_after_saying_so(trained_runs):
    first, second = open_runs([trained_runs / "uiat", trained_runs / "pgd-at"])
    foreign = replace(second, config=replace(second.config, data=uiat.Data(name="mnist")))
    (note,) = Context([first, foreign], StudyOptions()).notes
    assert note.startswith("Careful: the runs are of different data sets (digits and mnist)")


def test_runs_are_named_by_their_folders_and_told_apart(trained_runs, tmp_path):
    copy = shutil.copytree(trained_runs / "uiat", tmp_path / "uiat")
    assert [s.label for s in open_runs([trained_runs / "uiat", trained_runs / "pgd-at"])] == ["uiat", "pgd-at"]
    labels = [s.label for s in open_runs([trained_runs / "uiat", copy])]
    assert labels == [f"{trained_runs.name}/uiat", f"{tmp_path.name}/uiat"]


def test_images_and_models_are_those_of_the_run(trained_runs):
    context = Context(open_runs([trained_runs / "uiat"]), StudyOptions(n=7, which="last"))
    (run,) = context.runs
    x, y = context.load_images(run, "held-out")
    assert (x.shape, y.shape, context.sizes) == ((7, 1, 8, 8), (7,), {"held-out": 7})
    assert context.class_names(run) == [str(i) for i in range(10)]
    last = uiat.load(run.folder, "last").state_dict()
    assert all(torch.equal(value, last[name]) for name, value in context.load_model(run).state_dict().items())
    inverse = context.make_attack(scale=0.5, descend=True)
    assert (float(inverse.threat.epsilon), inverse.descend, inverse.steps) == (0.1, True, 20)


def test_the_weights_that_were_kept_say_their_epoch(trained_runs, tmp_path):
    (run,) = open_runs([shutil.copytree(trained_runs / "uiat", tmp_path / "run")])
    kept = kept_weights(run)
    as_version_1(run.folder)  # without a manifest, which would miss the files first
    assert kept[1][-1] == "last"
    assert sorted(name for names in kept.values() for name in names) == ["best", "last"]
    for name in ("best", "last"):
        (run.folder / f"{name}.safetensors").unlink()
    with pytest.raises(uiat.UserError, match="has no weights that say their epoch"):
        kept_weights(run)
