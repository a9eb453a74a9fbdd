"""Measurements that several studies make."""

import shutil
from pathlib import Path

import torch

import uiat
from support import helpers
from support.studies import write_history
from uiat import Linf
from uiat.analyse.measurements import (
    compute_gradients,
    compute_logits,
    correct_by_split,
    craft,
    find_repeats,
    held_out_accuracy,
    without_copies,
)
from uiat.analyse.study import Context, StudyOptions, open_runs
from uiat.evaluation import attack, correct_under


def test_equally_many_images_of_two_splits_are_attacked(trained_runs):
    context = Context(open_runs([trained_runs / "pgd-at"]), StudyOptions())
    (run,) = context.runs
    pgd = attack("pgd-2", threat=Linf(0.2))
    masks = correct_by_split(context, run, pgd, ("train", "held-out"))
    assert context.sizes == {"train": 40, "held-out": 40}  # of 96 and 40
    # The same as attacking the images by hand.
    for split, mask in masks.items():
        x, y = (part[:40] for part in context.load_images(run, split))
        assert torch.equal(mask, correct_under(uiat.load(run.folder), x, y, pgd))


def test_accuracy_on_held_out_images_comes_with_the_seconds_of_training(trained_runs):
    context = Context(open_runs([trained_runs / "pgd-at"]), StudyOptions(n=30, attack="pgd-2"))
    (run,) = context.runs
    measured = held_out_accuracy(context, run)
    x, y = context.load_images(run, "held-out")
    assert measured["n"] == 30
    assert measured["clean"] == correct_under(uiat.load(run.folder), x, y, None).double().mean().item()
    assert 0 <= measured["robust"] <= measured["clean"]
    assert measured["seconds"] == sum(row["seconds"] for row in context.read_history(run)) > 0


def test_examples_gradients_and_logits_do_not_depend_on_the_size_of_a_batch(monkeypatch):
    model, x, y = helpers.mlp(), torch.rand(7, *helpers.SHAPE), torch.arange(7) % 4
    pgd = helpers.pgd(start="uniform")

    def measure():
        return compute_logits(model, x), compute_gradients(model, x, y), craft(model, x, y, pgd, seed=1)

    whole = measure()
    monkeypatch.setattr("uiat.analyse.measurements.BATCH", 3)
    for one, other in zip(whole, measure(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path):
    made = (("a-seed0", 0, {}), ("a-seed1", 1, {}), ("b", 0, {"objective": uiat.Standard()}))
    folders = [write_history(tmp_path / name, [], seed=seed, **settings) for name, seed, settings in made]
    assert find_repeats(open_runs(folders)) == {"a": ["a-seed0", "a-seed1"], "b": ["b"]}


def test_a_copy_of_a_run_is_no_second_seed(trained_runs, tmp_path, caplog):
    first, copy = trained_runs / "uiat", Path(shutil.copytree(trained_runs / "uiat", tmp_path / "copy"))
    assert [run.folder for run in without_copies(open_runs([first, copy, trained_runs / "pgd-at"]))] == [
        first,
        trained_runs / "pgd-at",
    ]
    assert f"{copy} is passed over: it has the seed and the weights of {first}" in caplog.text
