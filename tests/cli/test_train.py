"""`uiat train`: recipes, files, runs that are resumed, and Ctrl-C."""

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import torch

import uiat
from support.commands import TINY, UIAT, environment, process
from uiat.config.yaml_io import describe_fields
from uiat.system.manifest import read_manifest

EPOCHS = 4


def test_train_says_where_it_goes_and_prints_a_line_an_epoch(ask, tmp_path):
    folder = tmp_path / "run"
    words = ["digits-standard", "model.width=4", "--optimisation.epochs=2", "--seed", "3", "--run-dir", folder]
    code, out, err = ask("train", *words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"run folder: {folder}"
    assert [line[:10] for line in lines if line.startswith("epoch")] == ["epoch 1/2:", "epoch 2/2:"]
    assert f"uiat evaluate {folder}" in out
    run = uiat.load_config((folder / "config.yaml").read_text())
    assert (run.seed, run.model.width, run.optimisation.epochs) == (3, 4, 2)


def test_train_from_a_file_with_an_override_into_a_numbered_folder(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("name: mine\nmodel: {width: 4}\nobjective: {name: standard}\n")
    for folder in ("mine", "mine-2"):
        code, out, _ = ask("train", "--config", "run.yaml", "optimisation.epochs=1")
        assert code == 0
        assert out.startswith(f"run folder: runs/{folder}\n")


def test_a_finished_run_has_nothing_left_to_train(ask, run):
    code, out, _ = ask("train", "--resume", run)
    assert code == 0
    assert "nothing is left to train" in out


def test_help_of_a_recipe_lists_every_field_with_its_default(ask):
    code, out, _ = ask("train", "digits-trades", "seed=7", "--help")
    assert code == 0
    assert re.search(r"^ seed +7 ", out, re.M)
    run = uiat.recipes.get("digits-trades")
    assert all(path in out for path, _, _ in describe_fields(run))


def test_an_existing_folder_is_never_overwritten(ask, run):
    before = {path: path.read_bytes() for path in run.iterdir()}
    code, _, err = ask("train", "digits-uiat", *TINY, "--run-dir", run)
    assert code == 2
    assert "never overwritten" in err
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_file_that_names_code_needs_consent(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import torch\nprint('imported')\n"
        "def net(num_classes, image_shape):\n"
        "    c, h, w = image_shape\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(c * h * w, num_classes))\n"
    )
    Path("run.yaml").write_text("name: own\nmodel: {name: 'mine.py:net'}\noptimisation: {epochs: 1}\n")
    code, out, err = ask("train", "--config", "run.yaml")
    assert code == 2
    assert "--own-code" in err
    assert "imported" not in out
    code, out, _ = ask("train", "--config", "run.yaml", "--own-code")
    assert code == 0
    assert "uiat evaluate runs/own --own-code" in out
    assert ask("evaluate", "runs/own", "--attacks", "clean")[0] == 2
    assert ask("evaluate", "runs/own", "--attacks", "clean", "--own-code")[0] == 0
    words = ["optimisation.epochs=1", "model.width=null", "model.name=mine.py:net"]
    assert ask("train", "digits-standard", *words)[0] == 0  # named by the user, here and now


def test_a_loss_that_is_not_finite_is_a_fault_in_one_line(ask, tmp_path):
    words = ["model.width=4", "optimisation.epochs=1", "optimisation.learning_rate=1e30", "--run-dir", tmp_path / "run"]
    code, _, err = ask("train", "digits-pgd-at", *words)
    assert code == 1
    assert "not finite" in err
    assert err.count("\n") == 1


def test_a_second_ctrl_c_says_what_is_lost(ask, tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(uiat.training.loop.Training, "fit", stop)
    folder = tmp_path / "run"
    code, _, err = ask("train", "digits-uiat", *TINY, "--run-dir", folder)
    assert code == 130
    assert "what came after the last checkpoint is lost" in err
    assert err.endswith(f"resume with: uiat train --resume {folder}\n")


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    folder = tmp_path / "a run"
    words = ["digits-uiat", *TINY, f"optimisation.epochs={EPOCHS}", "--run-dir", folder]
    training = process("train", *words)
    while not training.stdout.readline().startswith("epoch"):
        assert training.poll() is None
    training.send_signal(signal.SIGINT)
    _, err = training.communicate(timeout=200)
    assert training.returncode == 130
    said = re.fullmatch(r"uiat: stopped in epoch (\d+), after step (\d+) of 17, saved; resume with: (.*)\n", err)
    assert said is not None, err
    assert said[3] == f"uiat train --resume '{folder}'"
    resumed = process("train", "--resume", folder)
    out, err = resumed.communicate(timeout=200)
    assert (resumed.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"run folder: {folder}, resumed in epoch {said[1]} of {EPOCHS}, after step {said[2]} of 17"
    epochs = [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("epoch")]
    assert epochs == list(range(int(said[1]), EPOCHS + 1))


def test_a_terminal_sees_bars(tmp_path):
    """The whole way through a pseudo-terminal."""
    words = ["train", "digits-uiat", *TINY, "--run-dir", str(tmp_path / "run")]
    ours, theirs = pty.openpty()
    child = subprocess.Popen([*UIAT, *words], env=environment(), stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so at the end
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert child.wait(timeout=200) == 0
    text = seen.decode()
    for part in ("step 1", "images/s", "left", "adv_ce", "epoch 1/1", "everything lies in"):
        assert part in text


def test_the_command_line_names_weights_in_any_order(tmp_path, ask):
    file = tmp_path / "given.pth"
    given = uiat.models.build("small-cnn", num_classes=7, image_shape=(1, 8, 8), width=4)
    torch.save(given.state_dict(), file)
    fields = ["model.weights=" + str(file), "model.name=small-cnn", "model.width=4", "optimisation.epochs=1"]
    more = ["data.subset=64", "objective.attack.steps=1", "validation.steps=1"]
    code, _, said = ask("train", "digits-pgd-at", "--run-dir", tmp_path / "run", *fields, *more)
    assert code == 0, said
    assert "the last layer (head.weight, head.bias) is new" in said
    assert read_manifest(tmp_path / "run")["start"]["weights"] == str(file)
    code, _, said = ask("train", "digits-pgd-at", "model.weights=nowhere.pth", "--run-dir", tmp_path / "no")
    assert code == 2
    assert "no such file: nowhere.pth" in said
    assert not (tmp_path / "no").exists()
