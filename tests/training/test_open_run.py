"""Opening a run: everything is there before its first step, and the best weights after its last."""

from dataclasses import replace

import pytest
import torch
import yaml

import uiat
from support import tiny
from uiat import UserError
from uiat.data import open_data
from uiat.system.manifest import update_manifest
from uiat.training import setup
from uiat.training.open_run import reopen_run, start_run
from uiat.training.result import load_best


def test_a_started_run_has_its_folder_its_lock_and_no_step(tmp_path):
    with start_run(tiny.run(), run_dir=tmp_path / "run") as training:
        assert (training.epoch, training.position, training.history) == (0, 0, [])
        assert (tmp_path / "run" / "config.yaml").exists()
        assert training.teachers.method is None
        assert not any(p.grad is not None for p in training.model.parameters())


def test_a_finished_run_that_is_opened_again_gives_its_best_weights(tmp_path):
    trained = uiat.train(tiny.run(epochs=3), run_dir=tmp_path / "run")
    with reopen_run(tmp_path / "run") as training:
        assert training.epoch == 3
        model = load_best(training)
    assert not model.training
    assert all(torch.equal(v, trained.model.state_dict()[k]) for k, v in model.state_dict().items())
    assert model.threat == trained.model.threat


def test_the_folder_does_not_choose_where_a_download_goes(tmp_path):
    uiat.train(tiny.run(epochs=1), run_dir=tmp_path / "run")
    change_settings(tmp_path / "run", {"name": "mnist", "root": str(tmp_path / "elsewhere")})
    says = "nothing is downloaded into a folder that only a run names"
    with pytest.raises(UserError, match=says), reopen_run(tmp_path / "run"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_data_that_is_in_the_place_that_the_folder_names_is_trained_on(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(setup, "open_data", lambda *given, **how: opened.append(how) or open_data(*given))
    data = replace(tiny.run().data, root=str(tmp_path / "mine"))
    uiat.train(replace(tiny.run(epochs=1), data=data), run_dir=tmp_path / "run")
    with reopen_run(tmp_path / "run") as training:
        assert training.epoch == 1
    assert [(how["root"], how["download"]) for how in opened] == [(data.root, True), (data.root, False)]


def change_settings(folder, data):
    """Change where the data of a run comes from, in its settings and in the manifest, as a forger would."""
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    tree["data"] |= data
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    tree.pop("format")
    update_manifest(folder, settings=tree)
