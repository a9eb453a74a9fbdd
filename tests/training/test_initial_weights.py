"""A run that starts from weights: of a file or a run, with a new last layer, recorded, resumed without the file."""

import json

import pytest
import torch
from torch import nn

import uiat
from support import tiny
from support.tiny import Killed, Killer
from uiat import Model, Optimisation, Run, UserError
from uiat.models import build
from uiat.runs.settings import read_run
from uiat.system.manifest import read_manifest, sum_of_file
from uiat.training.initial_weights import load_initial_weights
from uiat.training.open_run import reopen_run, start_run

STILL = Optimisation(epochs=1, learning_rate=0.0, weight_decay=0.0)


def small(classes=10, channels=1):
    torch.manual_seed(9)
    return build("small-cnn", num_classes=classes, image_shape=(channels, 8, 8), width=4)


@pytest.fixture
def file(tmp_path):
    """Weights of another network, of 7 classes, wrapped as people save them."""
    path = tmp_path / "given.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in small(7).state_dict().items()}, "epoch": 3}, path)
    return path


def from_weights(path, **settings):
    return tiny.run(model=Model(name="small-cnn", width=4, weights=str(path)), **settings)


def test_a_file_gives_every_weight_but_a_last_layer_of_other_classes(file, tmp_path, caplog):
    with start_run(from_weights(file), run_dir=tmp_path / "run") as training:
        now = training.model.state_dict()
    given, new = small(7).state_dict(), small(10).state_dict()
    assert all(torch.equal(now[name], given[name]) for name in given if not name.startswith("head."))
    assert now["head.weight"].shape == new["head.weight"].shape
    assert now["head.weight"].std(correction=0).item() == pytest.approx(0.01)  # small, so that the body is not undone
    assert (
        "given.pth: the last layer (head.weight, head.bias) is new: the weights are of 7 classes, the model has 10"
        in caplog.messages
    )
    record = read_manifest(tmp_path / "run")
    assert record["start"] == {"weights": str(file), "sha256": sum_of_file(file)}
    assert read_run(tmp_path / "run").model.weights == str(file)


def test_a_run_gives_its_best_weights(tmp_path):
    uiat.train(tiny.run(), run_dir=tmp_path / "old", progress=False)
    with start_run(from_weights(tmp_path / "old"), run_dir=tmp_path / "new") as training:
        now = training.model.state_dict()
    best = uiat.load(tmp_path / "old", "best").state_dict()
    assert all(torch.equal(now[name], best[name]) for name in best)
    assert read_manifest(tmp_path / "new")["start"]["weights"] == str(tmp_path / "old" / "best.safetensors")


def test_fit_starts_from_weights_and_trains_them(tmp_path, file):
    model = small(4)
    x, y = tiny.tensors()
    options = {"objective": uiat.PGDAT(attack=tiny.attack()), "batch_size": 16, "progress": False, "weights": file}
    uiat.fit(model, (x, y), optimisation=STILL, run_dir=tmp_path / "run", **options)
    body = [name for name, _ in model.named_parameters() if not name.startswith("head.")]
    assert all(torch.equal(model.state_dict()[name], small(7).state_dict()[name]) for name in body)
    assert read_manifest(tmp_path / "run")["start"]["sha256"] == sum_of_file(file)


@pytest.mark.parametrize("at", [1, 4])
def test_resume_does_not_need_the_file_again(file, tmp_path, at):
    whole = uiat.train(from_weights(file), run_dir=tmp_path / "whole", progress=False)
    with pytest.raises(Killed):
        uiat.train(from_weights(file), run_dir=tmp_path / "cut", listener=Killer(at), progress=False)
    file.unlink()
    uiat.resume(tmp_path / "cut", progress=False)
    assert tiny.differences(tmp_path / "cut", whole.folder) == []


def test_a_run_killed_before_its_first_step_resumes_from_the_weights(file, tmp_path):
    with start_run(from_weights(file), run_dir=tmp_path / "run") as training:
        first = {name: value.clone() for name, value in training.model.state_dict().items()}
    file.unlink()
    with reopen_run(tmp_path / "run") as training:
        assert all(torch.equal(value, first[name]) for name, value in training.model.state_dict().items())
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with pytest.raises(UserError, match=r"checkpoint\.safetensors"), reopen_run(tmp_path / "run"):
        pass


def half(weights):
    return dict(list(weights.items())[: len(weights) // 2])


BAD = {
    "half": (lambda: half(small(10).state_dict()), r"do not fit the model: missing body\..* and \d+ more"),
    "channels": (lambda: small(10, channels=3).state_dict(), r"do not fit the model: .* is \(.*\) and not \(.*\)"),
    "foreign": (lambda: nn.Linear(3, 3).state_dict(), "do not fit the model: missing .*; unexpected weight, bias"),
    "not finite": (
        lambda: small(10).state_dict() | {"head.bias": torch.full((10,), torch.nan)},
        "cannot be trained from: head.bias holds values that are not finite",
    ),
}


@pytest.mark.parametrize(("weights", "says"), BAD.values(), ids=BAD)
def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path, weights, says):
    torch.save(weights(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=says) as error:
        uiat.train(from_weights(tmp_path / "w.pth"), run_dir=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "w.pth") in str(error.value)
    assert not (tmp_path / "run").exists()


def test_missing_files_and_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no such file: nowhere\.pth"):
        load_initial_weights(small(), Model(weights="nowhere.pth"), num_classes=10)
    with pytest.raises(UserError, match=r"has no best\.safetensors"):
        load_initial_weights(small(), Model(weights=str(tmp_path)), num_classes=10)


def test_no_weights_leave_no_record(tmp_path):
    with start_run(Run(), run_dir=tmp_path / "run"):
        pass
    assert "start" not in json.loads((tmp_path / "run" / "manifest.json").read_text())


def test_a_run_with_every_setting_of_fine_tuning_resumes_bit_for_bit(tmp_path):
    model = Model(name="preact-resnet8", width=4, freeze=("body.stem.*",))
    settings = {"decay_norms": False, "layer_decay": 0.7, "radius_warmup_epochs": 2, "average": "ema"}
    run = tiny.run(model=model, epochs=3, schedule="onecycle", **settings)
    uiat.train(run, run_dir=tmp_path / "whole", progress=False)
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "cut", listener=Killer(5), progress=False)
    uiat.resume(tmp_path / "cut", progress=False)
    assert tiny.differences(tmp_path / "cut", tmp_path / "whole") == []
