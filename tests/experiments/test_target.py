"""The model and the images of an evaluation: a run's, a weights file's, or the user's own."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

import uiat
from support.commands import OWN, TINY, fitted, folder_of_images, result
from uiat.runs import checkpoint
from uiat.system.tensor_files import read_tensors


def test_evaluate_takes_defaults_from_the_run(ask, run):
    settings = run / "config.yaml"
    old = uiat.load_config(settings.read_text())
    settings.write_text(uiat.dump(uiat.override(old, [("evaluation.attacks", "[fgsm]"), ("evaluation.n", "30")])))
    assert ask("evaluate", run)[0] == 0
    result = json.loads((run / "evaluation.json").read_text())
    assert (list(result["accuracy"]), result["n"]) == (["clean", "fgsm", "worst"], 30)


def test_a_run_that_asks_for_more_images_than_there_are_is_evaluated_on_all(ask, run):
    old = uiat.load_config((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(uiat.dump(uiat.override(old, [("evaluation.n", "100000")])))
    assert ask("evaluate", run, "--attacks", "clean")[0] == 0
    assert json.loads((run / "evaluation.json").read_text())["n"] == 539


def test_code_and_weights_of_the_user(ask, own):
    code, out, err = ask("evaluate", *own, "--attacks", "fgsm", "--n", 60, "--out", "result")
    assert (code, err) == (0, "")
    assert "w.pth: the weights are its entry 'state_dict'" in out
    assert "'module.' was taken off the names" in out
    assert "mine.py:net, on 60 test images of digits; threat model Linf 8/255" in out
    found = result(Path("result"))
    assert found["accuracy"]["clean"] > 0.8
    assert [found[k] for k in ("model", "weights", "data", "n")] == ["mine.py:net", "w.pth", "digits", 60]
    assert sorted(path.name for path in Path("result").iterdir()) == ["evaluation.json"]


def test_a_built_in_model_with_the_weights_of_a_run(ask, trained, tmp_path):
    words = ["--model", "small-cnn", "--width", 4, "--weights", trained / "best.safetensors", "--data", "digits"]
    code, _, err = ask(
        "evaluate", *words, "--threat", "Linf:0.2", "--attacks", "fgsm", "--out", tmp_path / "a", "--n", 40
    )
    assert (code, err) == (0, "")
    assert (
        ask("evaluate", trained, "--threat", "Linf:0.2", "--attacks", "fgsm", "--out", tmp_path / "b", "--n", 40)[0]
        == 0
    )
    assert result(tmp_path / "a")["accuracy"] == result(tmp_path / "b")["accuracy"]
    assert not (trained / "evaluation.json").exists()


def test_a_result_is_not_written_into_another_run(ask, trained, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").touch()
    model = ["--model", "small-cnn", "--width", 4, "--weights", trained / "best.safetensors", "--data", "digits"]
    for words, folder in ([trained], tmp_path / "other"), ([*model, "--threat", "Linf:0.2"], trained):
        code, _, err = ask("evaluate", *words, "--attacks", "clean", "--n", 5, "--out", folder)
        assert (code, "is a run, and would take this for its own result" in err) == (2, True)
        assert not (folder / "evaluation.json").exists()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_bomb_does_not_go_off(ask, own):
    torch.save({"state_dict": fitted().state_dict(), "x": Bomb()}, "w.pth")
    code, out, err = ask("evaluate", *own)
    assert (code, out) == (2, "")
    assert "w.pth is damaged or holds Python objects beside tensors, such as posix.mkdir; nothing in it was run" in err
    assert err.count("\n") == 1
    assert not Path("exploded").exists()


def test_examples_of_another_model(ask, run, trained):
    code, out, err = ask("evaluate", run, "--attacks", "clean", "--transfer", trained, "--n", 30)
    assert (code, err) == (0, "")
    assert list(result(run)["accuracy"]) == ["clean", "transfer", "worst"]
    assert re.search(r"transfer +\d", out)


MISTAKES = {
    "neither": ([], "name a RUN folder to evaluate, or any model: --model NAME --weights FILE"),
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
    "transfer from nothing": (["RUN", "--transfer", "missing"], "no run folder missing"),
    "transfer without": (["RUN", "--attacks", "transfer"], "needs a second model: --transfer RUN"),
    "examples nowhere": (["RUN", "--save-examples", "missing/a.safetensors"], "there is no folder missing"),
    "bench nowhere": (["RUN", "--robustbench-json", "missing/a.json"], "there is no folder missing"),
    "no attack": (["RUN", "--attacks", ""], "--attacks names nothing: leave it out, or give it a name"),
    "no certification": (["RUN", "--certify", " ,"], "--certify names nothing"),
    "log nowhere": (["RUN", "--log-file", "missing/a.txt"], "there is no folder missing"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(ask, own, trained, words, says):
    expanded = [w for word in words for w in ({"RUN": [trained], "OWN": own}.get(word, [word]))]
    code, out, err = ask("evaluate", *expanded)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (trained / "evaluation.json").exists()


def test_labels_that_do_not_fit(ask, own, tmp_path):
    Path("ten.py").write_text(OWN.replace("num_classes)", "10)"))
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).state_dict(), "w.pth")
    folder_of_images(tmp_path / "images", 3)
    words = ["--model", "ten.py:net", "--weights", "w.pth", "--data", f"imagefolder:{tmp_path / 'images'}"]
    code, out, err = ask("evaluate", *words, "--image-size", 8, "--threat", "Linf:8/255")
    assert (code, out) == (2, "")
    assert "the model tells 10 classes apart" in err
    assert "has 3: its labels do not fit" in err


def test_images_that_do_not_fit(ask, trained, tmp_path):
    folder_of_images(tmp_path / "images", 3)
    words = ["--data", f"imagefolder:{tmp_path / 'images'}", "--image-size", 8]
    code, _, err = ask("evaluate", trained, *words)
    assert code == 2
    assert err.count("\n") == 1


def refused_transfer(ask, trained, folder, *, num_classes, channels):
    """What is said of a second model that does not fit."""
    spec = {"name": "small-cnn", "num_classes": num_classes, "image_shape": [channels, 8, 8], "width": 4}
    folder.mkdir()
    checkpoint.save_weights(folder / "best.safetensors", uiat.models.build(**spec), spec=spec, threat=None)
    code, out, err = ask("evaluate", trained, "--transfer", folder, "--attacks", "clean")
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


def test_a_model_that_expects_normalised_images_gives_itself_away(ask, own):
    model = fitted(normalized=True)
    model[1].bias.data += torch.linspace(-2, 2, 10)  # more than digits as they are, with their smaller logits, stand
    torch.save(model.state_dict(), "w.pth")
    code, out, err = ask("evaluate", *own, "--attacks", "fgsm")
    assert (code, out) == (2, "")
    assert "the model expects normalised images: of 500 it has " in err
    assert "add --normalize" in err
    assert err.count("\n") == 1
    assert ask("evaluate", *own, "--attacks", "fgsm", "--normalize")[0] == 0


def test_a_model_that_expects_pixel_values_is_told_so(ask, own):
    Path("mine.py").write_text(OWN.replace("nn.Flatten()", "nn.Flatten(), nn.BatchNorm1d(c * h * w)"))
    model, norm = fitted(), torch.nn.BatchNorm1d(64)
    norm.running_var.fill_(255.0**2)  # a scale of its own, which no bias on the scale of [0, 1] stands beside
    model[1].bias.data += torch.linspace(-4, 4, 10)
    state = {f"1.{k}": v for k, v in norm.state_dict().items()} | {
        f"2.{k}": v for k, v in model[1].state_dict().items()
    }
    torch.save(state, "w.pth")
    code, out, err = ask("evaluate", *own, "--attacks", "fgsm")
    assert (code, out) == (2, "")
    assert "the model expects pixel values from 0 to 255: of 500 it has " in err
    assert "multiplied by 255; multiply in the model's first layer" in err
    assert "normal" not in err


def test_a_model_that_no_scale_fits_is_evaluated(ask, own, monkeypatch):
    model = fitted(normalized=True)
    model[1].bias.data += torch.linspace(-4, 4, 10)
    model[1].weight.data[:7], model[1].bias.data[:7] = 0, -100  # three classes are left, which normalised images fit
    torch.save(model.state_dict(), "w.pth")
    code, _, err = ask("evaluate", *own, "--attacks", "clean", "--n", 100)
    assert (code, err) == (0, "")


def test_normalisation_put_before_the_model(ask, own):
    torch.save(fitted(normalized=True).state_dict(), "w.pth")
    assert ask("evaluate", *own, "--attacks", "clean", "--normalize", "--out", "result")[0] == 0
    assert result(Path("result"))["accuracy"]["clean"] > 0.85
    assert result(Path("result"))["normalize"] is True


def test_a_run_records_its_classes_and_is_evaluated_on_those(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_images(Path("images"), 3, names=("cat", "dog", "emu"), each=4)
    folder_of_images(Path("others"), 3, names=("cat", "dog", "fox"), each=4)
    few = ["data.name=imagefolder:images", "data.image_size=8", "data.batch_size=4", "data.validation=3", *TINY]
    assert ask("train", "digits-pgd-at", *few, "--run-dir", "run")[0] == 0
    for name in ("best", "last"):
        assert read_tensors(Path(f"run/{name}.safetensors"))[1]["classes"] == ["cat", "dog", "emu"]
    assert ask("evaluate", "run", "--attacks", "clean")[0] == 0
    code, _, err = ask("evaluate", "run", "--data", "imagefolder:others", "--attacks", "clean")
    assert code == 2
    assert "'emu' is 'fox' here; name them as in training (cat, dog, emu)" in err
