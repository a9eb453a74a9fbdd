"""`uiat evaluate` of any model, and what it measures, keeps and refuses beyond the attacks on a run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import uiat
from support import helpers, tiny
from support.paths import ROOT
from uiat.attacks import Square
from uiat.cli import main
from uiat.data import STATS
from uiat.system.atomic_files import read_tensors

OWN = """
from torch import nn

def net(*, num_classes, image_shape):
    c, h, w = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    uiat.train(tiny.run(epochs=1), run_dir=folder)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, for tests that do."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def ask(capsys, unchecked, monkeypatch):
    """Run `uiat evaluate` in this process: (exit code, standard output, standard error)."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def ask(*words):
        code = main(["evaluate", *(str(word) for word in words)])
        out = capsys.readouterr()
        return code, out.out, out.err

    return ask


def fitted(*, normalized=False):
    """A linear classifier of the digits, fitted in a moment: to images in [0, 1], or to normalised ones."""
    x, y = uiat.data.tensors("digits", "train")
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in STATS["digits"])
    x = (x - mean) / std if normalized else x
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with the user's code and weights, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN)
    torch.save({"state_dict": {f"module.{k}": v for k, v in fitted().state_dict().items()}}, "w.pth")
    return ["--model", "mine.py:net", "--weights", "w.pth", "--data", "digits", "--threat", "linf:8/255"]


def result(folder):
    return json.loads((folder / "evaluation.json").read_text())


# Any model.


def test_code_and_weights_of_the_user(ask, own):
    code, out, err = ask(*own, "--attacks", "fgsm", "--n", 60, "--out", "result")
    assert (code, err) == (0, "")
    assert "w.pth: the weights are its entry 'state_dict'" in out
    assert "'module.' was taken off the names" in out
    assert "mine.py:net, on 60 test images of digits; threat model Linf 8/255" in out
    found = result(Path("result"))
    assert found["accuracy"]["clean"] > 0.8
    assert [found[k] for k in ("model", "weights", "data", "n")] == ["mine.py:net", "w.pth", "digits", 60]
    assert sorted(path.name for path in Path("result").iterdir()) == ["evaluation.json"]


def test_without_a_folder_nothing_is_kept(ask, own, tmp_path):
    before = {path.name for path in tmp_path.iterdir()}
    assert ask(*own, "--attacks", "clean", "--n", 20)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} - before <= {"__pycache__"}


def test_a_built_in_model_with_the_weights_of_a_run(ask, trained, tmp_path):
    words = ["--model", "small-cnn", "--width", 4, "--weights", trained / "best.safetensors", "--data", "digits"]
    code, _, err = ask(*words, "--threat", "Linf:0.2", "--attacks", "fgsm", "--out", tmp_path / "a", "--n", 40)
    assert (code, err) == (0, "")
    assert ask(trained, "--threat", "Linf:0.2", "--attacks", "fgsm", "--out", tmp_path / "b", "--n", 40)[0] == 0
    assert result(tmp_path / "a")["accuracy"] == result(tmp_path / "b")["accuracy"]
    assert not (trained / "evaluation.json").exists()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_bomb_does_not_go_off(ask, own):
    torch.save({"state_dict": fitted().state_dict(), "x": Bomb()}, "w.pth")
    code, out, err = ask(*own)
    assert (code, out) == (2, "")
    assert "w.pth is damaged or holds Python objects beside tensors, such as posix.mkdir; nothing in it was run" in err
    assert err.count("\n") == 1
    assert not Path("exploded").exists()


# What is measured and kept besides.


def test_records_of_all_kinds(ask, run, tmp_path):
    files = {name: tmp_path / name for name in ("adv.safetensors", "bench.json", "log.txt")}
    words = ["--save-examples", files["adv.safetensors"], "--robustbench-json", files["bench.json"], "-v"]
    words += ["--log-file", files["log.txt"], "--epsilons=-0.05,0,0.05,...,0.2", "--sweep-attack", "pgd-2"]
    code, out, err = ask(run, "--attacks", "fgsm,autoattack-quick", "--n", 12, *words)
    assert (code, err) == (0, "")
    found = result(run)
    assert set(found["intervals"]) == set(found["per_class"]) == set(found["accuracy"])
    assert found["passes"]["fgsm"]["backward"] > 0
    assert {"ece", "bins"} == set(found["calibration"])
    assert found["budgets"]["apgd-ce"]["iterations"] == 100
    assert {"torch", "python"} <= set(found["environment"]) or found["environment"]
    assert "examples" not in found
    assert len(found["sweep"]["accuracy"]) == len(found["sweep"]["epsilons"]) == 6
    assert "at each radius" in out
    assert re.search(r"0\.05 +12\.75/255 +\d", out)
    log = files["log.txt"].read_text()
    for line in ("initial accuracy: ", "robust accuracy after APGD-CE: ", "robust accuracy after APGD-T: "):
        assert line in log
        assert line in out
    bench = json.loads(files["bench.json"].read_text())
    assert (bench["dataset"], bench["eps"], bench["architecture"]) == ("digits", "51/255", "small-cnn")
    assert "autoattack_acc" not in bench  # the quick ensemble is no standard
    tensors, meta = read_tensors(files["adv.safetensors"])
    x = uiat.data.tensors("digits", "test")[0][:12]
    assert float((tensors["x_adv"] - x).abs().max()) <= 0.2 + 1e-6
    assert tensors["broken"].tolist() == [bool(name) for name in found["broken_by"]]
    assert meta["broken_by"] == found["broken_by"]
    model = uiat.load(run)
    assert torch.equal(model(tensors["x_adv"]).argmax(1) != tensors["y"], tensors["broken"])
    assert not (run / "evaluation-state.safetensors").exists()


def test_examples_of_another_model(ask, run, trained):
    code, out, err = ask(run, "--attacks", "clean", "--transfer", trained, "--n", 30)
    assert (code, err) == (0, "")
    assert list(result(run)["accuracy"]) == ["clean", "transfer", "worst"]
    assert re.search(r"transfer +\d", out)


def test_other_norms_and_corruptions(ask, run):
    words = ["--norms", "L2:0.5,L1:3", "--norms-attack", "pgd-2", "--corruptions", "fog,contrast"]
    code, out, err = ask(run, "--attacks", "clean", "--n", 12, *words)
    assert (code, err) == (0, "")
    found = result(run)
    assert list(found["unseen"]["accuracy"]) == ["clean", "Linf:0.2", "L2:0.5", "L1:3", "union", "unseen"]
    assert list(found["corruptions"]["by_kind"]) == ["fog", "contrast"]
    assert re.search(r"L1:3 +\d", out)
    assert re.search(r"fog( +\d+\.\d\d %){6}", out)


@pytest.mark.parametrize(("threat", "pixels"), [("Linf:0.2", True), ("L2:0.5", False)])
def test_a_sweep_is_in_pixels_where_a_radius_is_one_of_pixels(ask, run, threat, pixels):
    words = ["--threat", threat, "--epsilons", "0,0.1", "--sweep-attack", "pgd-2"]
    code, out, err = ask(run, "--attacks", "clean", "--n", 12, *words)
    assert (code, err) == (0, "")
    assert ("in pixels" in out) is ("25.5/255" in out) is pixels
    assert re.search(r"0\.1 +(25\.5/255 +)?\d+\.\d\d %", out)


def test_the_verdict_is_kept_and_printed(ask, run):
    code, out, _ = ask(run, "--attacks", "fgsm", "--n", 40)
    assert code == 0
    assert "40 images" in result(run)["verdict"]
    assert f"verdict: {result(run)['verdict']}" in out


def test_a_stopped_evaluation_goes_on_to_the_same_result(ask, run, monkeypatch):
    words = [run, "--attacks", "pgd-3,cw-3", "--n", 40, "--batch-size", 10]
    assert ask(*words)[0] == 0
    whole = result(run)
    (run / "evaluation.json").unlink()
    seen = []

    def interrupt(self, stage, share):
        seen.append(stage)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("uiat.cli.evaluation_progress.EvaluationLines.bound", interrupt)
        code, _, err = ask(*words)
    assert code == 130
    assert f"the same command with --resume goes on from {run / 'evaluation-state.safetensors'}" in err
    assert err.count("\n") == 1
    code, _, err = ask(*words)
    assert code == 2
    assert "holds the state of an evaluation" in err
    code, _, err = ask(*words, "--resume")
    assert (code, err) == (0, "")
    again = result(run)
    for name in ("accuracy", "broken_by", "stages", "intervals"):
        assert again[name] == whole[name]
    assert not (run / "evaluation-state.safetensors").exists()


def test_a_killed_evaluation_goes_on_to_the_same_result(ask, run, tmp_path):
    words = [str(run), "--attacks", "pgd-20,apgd-ce,apgd-dlr,apgd-t", "--n", "60", "--out"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "uiat", "evaluate", *words, str(tmp_path / "killed")]
    state = tmp_path / "killed" / "evaluation-state.safetensors"
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    # It is written at the start and after each stage: once the first attack has ended, three are left.
    while not (state.exists() and "pgd-20" in read_tensors(state)[1]["tally"]["after"]) and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert state.exists()
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    assert ask(*words, tmp_path / "killed", "--resume")[0] == 0
    assert ask(*words, tmp_path / "whole")[0] == 0
    killed, whole = result(tmp_path / "killed"), result(tmp_path / "whole")
    for name in ("accuracy", "broken_by", "stages", "intervals", "per_class", "verdict"):
        assert killed[name] == whole[name]
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["evaluation.json"]


def test_resuming_what_has_not_begun_begins(ask, run):
    assert ask(run, "--attacks", "clean", "--n", 20, "--resume")[0] == 0


def test_processes_of_torchrun_come_to_the_result_of_one(run, tmp_path):
    words = ["--attacks", "pgd-2,square", "-n", "9", "--batch-size", "4", "--threat", "Linf:0.05"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    alone = [sys.executable, "-m", "uiat", "evaluate", str(run), *words, "--out", str(tmp_path / "one")]
    subprocess.run(alone, env=env, check=True, capture_output=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "uiat"]
    many = [*launcher, "evaluate", str(run), *words, "--out", str(tmp_path / "two")]
    done = subprocess.run(many, env=env, check=True, capture_output=True, text=True)
    assert done.stdout.count("written: ") == 1
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    for name in ("accuracy", "broken_by", "stages", "intervals", "per_class"):
        assert one[name] == two[name]
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["evaluation.json"]
    assert (one["processes"], two["processes"]) == (1, 2)


DETACHED = """
from torch import nn

class Rounded(nn.Module):
    def forward(self, x):
        return (7 * x.detach()).round() / 7

def net(*, num_classes, image_shape):
    c, h, w = image_shape
    return nn.Sequential(Rounded(), nn.Flatten(), nn.Linear(c * h * w, num_classes))
"""


def test_a_model_that_detaches_its_input_gets_a_verdict_and_a_record(ask, own, monkeypatch):
    helpers.replace_attack(monkeypatch, "square", lambda threat: Square(threat=threat, iterations=50))
    Path("mine.py").write_text(DETACHED)
    state = {name.replace("1", "2"): value for name, value in fitted().state_dict().items()}
    torch.save(state, "w.pth")
    words = ["--attacks", "fgsm,square", "--epsilons", "0,0.1", "--n", 30, "--out", "result"]
    code, out, err = ask(*own, *words)
    assert (code, err) == (0, "")
    assert "warning: not run: fgsm, which need a gradient" in out
    assert "warning: sweep: not measured" in out
    assert "verdict: do not believe this number: the output has no gradient" in out
    found = result(Path("result"))
    assert list(found["accuracy"]) == ["clean", "square", "worst"]
    assert found["not_measured"] == ["sweep"]
    assert found["verdict"].startswith("do not believe")
    assert ask(*own, *words)[0] == 0  # no state is in the way


# What is refused: exit code 2 and one line.

MISTAKES = {
    "neither": ([], "name a RUN folder to judge, or any model: --model NAME --weights FILE"),
    "both": (["RUN", "--model", "small-cnn"], "--model: a run has a model of its own"),
    "weights of a run": (["RUN", "--weights", "w.pth"], "--weights: a run has a model of its own"),
    "normalize a run": (["RUN", "--normalize"], "the model of a run normalises its images itself"),
    "model alone": (["--model", "small-cnn"], "--model small-cnn needs --weights and --data and --threat too"),
    "no threat": (["--model", "mine.py:net", "--data", "digits"], "needs --threat too"),
    "resume nowhere": (["OWN", "--resume"], "--resume with --model needs --out DIR"),
    "no weights": (["OWN", "--weights", "missing.pth"], "no such file: missing.pth"),
    "no function": (["OWN", "--model", "mine.py:nte"], "did you mean 'net'"),
    "other weights": (["OWN", "--model", "small-cnn"], "do not fit the model: missing "),
    "width": (["OWN", "--model", "small-cnn", "--width", "wide"], "--width must be a number of channels"),
    "other images": (["OWN", "--data", "digit"], "did you mean 'digits'"),
    "data of a run": (["RUN", "--data", "nothing"], "unknown data set 'nothing'"),
    "too many": (["OWN", "--n", "540"], "--n 540 is more than the 539 test images of digits; leave it out for all"),
    "epsilons out of order": (["RUN", "--epsilons", "0,4/255,2/255"], "epsilons must ascend"),
    "epsilons twice": (["RUN", "--epsilons", "0,0.1,0.1"], "stands in the list twice"),
    "epsilons in pixels": (["RUN", "--epsilons", "0,2,4"], 'did you mean "2/255"'),
    "epsilons of no attack": (["RUN", "--epsilons", "0,0.1", "--sweep-attack", "pdg-2"], "unknown attack 'pdg-2'"),
    "norms of no usual radii": (["RUN", "--norms", "usual"], "unknown data set 'digits'"),
    "norms": (["RUN", "--norms", "L3:0.5"], "unknown norm 'L3'"),
    "attack of norms": (["RUN", "--norms", "L2:0.5", "--norms-attack", "pdg-2"], "unknown attack 'pdg-2'"),
    "corruptions": (["RUN", "--corruptions", "smog"], "did you mean 'fog'"),
    "transfer from nothing": (["RUN", "--transfer", "missing"], "no run folder missing"),
    "transfer without": (["RUN", "--attacks", "transfer"], "needs a second model: --transfer RUN"),
    "examples nowhere": (["RUN", "--save-examples", "missing/a.safetensors"], "there is no folder missing"),
    "bench nowhere": (["RUN", "--robustbench-json", "missing/a.json"], "there is no folder missing"),
    "log nowhere": (["RUN", "--log-file", "missing/a.txt"], "there is no folder missing"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(ask, own, trained, words, says):
    expanded = [w for word in words for w in ({"RUN": [trained], "OWN": own}.get(word, [word]))]
    code, out, err = ask(*expanded)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (trained / "evaluation.json").exists()


def folder_of_images(path, classes):
    from PIL import Image

    for split in ("train", "test"):
        for name in range(classes):
            (path / split / str(name)).mkdir(parents=True)
            Image.new("L", (8, 8), 20 * name).convert("RGB").save(path / split / str(name) / "a.png")


def test_labels_that_do_not_fit(ask, own, tmp_path):
    Path("ten.py").write_text(OWN.replace("num_classes)", "10)"))
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).state_dict(), "w.pth")
    folder_of_images(tmp_path / "images", 3)
    words = ["--model", "ten.py:net", "--weights", "w.pth", "--data", f"imagefolder:{tmp_path / 'images'}"]
    code, out, err = ask(*words, "--image-size", 8, "--threat", "Linf:8/255")
    assert (code, out) == (2, "")
    assert "the model tells 10 classes apart" in err
    assert "has 3: its labels do not fit" in err


def test_images_that_do_not_fit(ask, trained, tmp_path):
    folder_of_images(tmp_path / "images", 3)
    words = ["--data", f"imagefolder:{tmp_path / 'images'}", "--image-size", 8]
    code, _, err = ask(trained, *words)
    assert code == 2
    assert err.count("\n") == 1


def refused_transfer(ask, trained, folder, *, num_classes, channels):
    """What is said of a second model that does not fit."""
    spec = {"name": "small-cnn", "num_classes": num_classes, "image_shape": [channels, 8, 8], "width": 4}
    folder.mkdir()
    uiat.checkpoint.save_weights(folder / "best.safetensors", uiat.models.build(**spec), spec=spec, threat=None)
    code, out, err = ask(trained, "--transfer", folder, "--attacks", "clean")
    assert (code, out) == (2, "")
    return err


def test_a_transfer_model_for_other_images_is_named(ask, trained, tmp_path):
    err = refused_transfer(ask, trained, tmp_path / "other", num_classes=10, channels=3)
    assert f"the model of --transfer {tmp_path / 'other'} takes images of shape (batch, 3, height, width)" in err
    assert err.count("\n") == 1


def test_a_transfer_model_with_other_classes(ask, trained, tmp_path):
    err = refused_transfer(ask, trained, tmp_path / "other", num_classes=4, channels=1)
    assert f"the model of --transfer {tmp_path / 'other'} tells 4 classes apart and digits has 10" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_a_damaged_state_file_is_named_and_left(ask, run, content):
    state = run / "evaluation-state.safetensors"
    state.write_bytes(content)
    code, _, err = ask(run, "--attacks", "clean", "--resume")
    assert code == 2
    assert str(state) in err
    assert err.count("\n") == 1
    assert state.read_bytes() == content
    assert not (run / "evaluation.json").exists()


def test_the_state_of_another_evaluation_is_refused(ask, run, monkeypatch):
    def interrupt(self, stage, share):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("uiat.cli.evaluation_progress.EvaluationLines.bound", interrupt)
        assert ask(run, "--attacks", "pgd-2", "--n", 20)[0] == 130
    code, _, err = ask(run, "--attacks", "pgd-2", "--n", 20, "--seed", 1, "--resume")
    assert code == 2
    assert "is the state of another evaluation: not the same seed" in err


def test_a_model_that_expects_normalised_images_gives_itself_away(ask, own):
    model = fitted(normalized=True)
    model[1].bias.data += torch.linspace(-2, 2, 10)  # more than digits as they are, with their smaller logits, stand
    torch.save(model.state_dict(), "w.pth")
    code, out, err = ask(*own, "--attacks", "fgsm")
    assert (code, out) == (2, "")
    assert "the model expects normalised images: of 500 it has " in err
    assert "add --normalize" in err
    assert err.count("\n") == 1
    assert ask(*own, "--attacks", "fgsm", "--normalize")[0] == 0


def test_a_model_that_expects_pixel_values_is_told_so(ask, own):
    Path("mine.py").write_text(OWN.replace("nn.Flatten()", "nn.Flatten(), nn.BatchNorm1d(c * h * w)"))
    model, norm = fitted(), torch.nn.BatchNorm1d(64)
    norm.running_var.fill_(255.0**2)  # a scale of its own, which no bias on the scale of [0, 1] stands beside
    model[1].bias.data += torch.linspace(-4, 4, 10)
    state = {f"1.{k}": v for k, v in norm.state_dict().items()} | {
        f"2.{k}": v for k, v in model[1].state_dict().items()
    }
    torch.save(state, "w.pth")
    code, out, err = ask(*own, "--attacks", "fgsm")
    assert (code, out) == (2, "")
    assert "the model expects pixel values from 0 to 255: of 500 it has " in err
    assert "multiplied by 255; multiply in the model's first layer" in err
    assert "normal" not in err


def test_a_model_that_no_scale_fits_is_judged(ask, own, monkeypatch):
    model = fitted(normalized=True)
    model[1].bias.data += torch.linspace(-4, 4, 10)
    model[1].weight.data[:7], model[1].bias.data[:7] = 0, -100  # three classes are left, which normalised images fit
    torch.save(model.state_dict(), "w.pth")
    code, _, err = ask(*own, "--attacks", "clean", "--n", 100)
    assert (code, err) == (0, "")


def test_an_earlier_result_is_kept(ask, run):
    for number, attack in enumerate(("clean", "fgsm", "pgd-2")):
        code, out, _ = ask(run, "--attacks", attack, "--n", 10)
        assert code == 0
        assert (f"kept: {run / 'evaluation-'}{number}.json" in out) is (number > 0)
    kept = [json.loads((run / name).read_text()) for name in ("evaluation-1.json", "evaluation-2.json")]
    assert [list(record["accuracy"]) for record in kept] == [["clean", "worst"], ["clean", "fgsm", "worst"]]
    assert "pgd-2" in result(run)["accuracy"]


def test_the_log_has_a_line_after_each_attack_and_one_in_the_end(ask, run):
    _, out, _ = ask(run, "--attacks", "fgsm,pgd-2", "--n", 10, "-v")
    lines = [line for line in out.splitlines() if "robust accuracy" in line]
    accuracy = {name: f"{100 * share:.2f}%" for name, share in result(run)["accuracy"].items()}
    assert lines[0].startswith(f"robust accuracy after FGSM: {accuracy['fgsm']} (total time ")
    assert lines[1].startswith(f"robust accuracy after PGD-2: {accuracy['pgd-2']} (total time ")
    assert lines[2:] == [f"robust accuracy: {accuracy['worst']}"]


def test_the_batch_size_in_the_record_is_the_one_that_was_used(ask, run, monkeypatch):
    monkeypatch.setattr("uiat.speed.fast_copy.CPU_BYTES", 100)  # as a large network has it
    assert ask(run, "--attacks", "clean", "--n", 30, "--batch-size", 25)[0] == 0
    assert (result(run)["batch_size"], result(run)["processes"]) == (16, 1)


def test_normalisation_put_before_the_model(ask, own):
    torch.save(fitted(normalized=True).state_dict(), "w.pth")
    assert ask(*own, "--attacks", "clean", "--normalize", "--out", "result")[0] == 0
    assert result(Path("result"))["accuracy"]["clean"] > 0.85
    assert result(Path("result"))["normalize"] is True
