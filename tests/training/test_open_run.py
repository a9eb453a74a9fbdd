"""Opening a run: everything is there before its first step, and the best weights after its last."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import uiat
from support import tiny
from support.tiny import Killed, Killer
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


def test_a_run_whose_images_were_moved_goes_on_when_told_where_they_are(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    x, y = uiat.data.tensors("digits", "train")
    np.savez("a.npz", x=x[:200].numpy(), y=y[:200].numpy())
    run = tiny.run(epochs=1, data={"name": "npz:a.npz"})
    uiat.train(run, run_dir="whole")
    with pytest.raises(Killed):
        uiat.train(run, run_dir="run", listener=Killer(2))
    Path("elsewhere").mkdir()
    Path("a.npz").rename("elsewhere/b.npz")
    with pytest.raises(UserError, match=f"npz:a.npz: there is no such file; check the path, seen from {tmp_path}"):
        uiat.resume("run")
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("npz:a.npz", "npz:elsewhere/b.npz"))
    uiat.resume("run")
    assert "was edited: data.name was 'npz:a.npz' and is 'npz:elsewhere/b.npz'" in caplog.text
    assert tiny.differences(Path("whole"), Path("run")) == []


def test_other_images_in_their_place_are_refused(tmp_path):
    x, y = uiat.data.tensors("digits", "train")
    for name, first in (("a", 0), ("b", 1)):
        np.savez(tmp_path / f"{name}.npz", x=x[first : first + 200].numpy(), y=y[first : first + 200].numpy())
    with pytest.raises(Killed):
        uiat.train(
            tiny.run(epochs=1, data={"name": f"npz:{tmp_path}/a.npz"}), run_dir=tmp_path / "run", listener=Killer(2)
        )
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("/a.npz", "/b.npz"))
    with pytest.raises(UserError, match="the training set is not the one"):
        uiat.resume(tmp_path / "run")
    config.write_text(config.read_text().replace(f"npz:{tmp_path}/b.npz", "digits"))
    with pytest.raises(UserError, match=r"data.name was .* and is 'digits'"):
        uiat.resume(tmp_path / "run")


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
