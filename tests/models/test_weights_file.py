import collections
import os

import pytest
import torch
from torch import nn

import uiat
from uiat.models import Classifier, Normalize
from uiat.models.weights_file import load_weights
from uiat.runs.checkpoint import save_weights
from uiat.system.tensor_files import write_tensors


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4))


def wrapped():
    return Classifier(Normalize([0.5], [0.25]), net()[:-1], net()[-1])


@pytest.fixture
def weights():
    torch.manual_seed(5)
    return net().state_dict()


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


SHAPES = {
    "plain": lambda w: w,
    "ordered": lambda w: collections.OrderedDict(w),
    "state_dict": lambda w: {"epoch": 3, "state_dict": w, "best_acc": 0.5},
    "model": lambda w: {
        "model": w,
        "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]},
    },
    "DataParallel": lambda w: prefixed(w, "module."),
    "compiled": lambda w: prefixed(w, "_orig_mod."),
    "both": lambda w: {"net": prefixed(w, "module._orig_mod.")},
    "averaged": lambda w: prefixed(w, "module.") | {"n_averaged": torch.tensor(3)},
    "Lightning": lambda w: {"state_dict": prefixed(w, "model.")},
    "nested": lambda w: {"checkpoint": {"weights": w}, "args": {"lr": 0.1}},
    "best and last": lambda w: {"last": {k: v + 1 for k, v in w.items()}, "best": w},
    "old BatchNorm": lambda w: {k: v for k, v in w.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_checkpoints_of_the_usual_shapes_are_read(tmp_path, weights, shape):
    torch.save(shape(weights), tmp_path / "w.pth")
    model = net()
    notes = load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in weights.items() if "num_batches" not in k)
    assert (notes == []) == (shape(weights).keys() <= weights.keys())


def test_safetensors(tmp_path, weights):
    write_tensors(tmp_path / "w.safetensors", prefixed(weights, "module."), {"kind": "foreign"})
    model = net()
    assert load_weights(model, str(tmp_path / "w.safetensors")) == ["'module.' was taken off the names"]
    assert torch.equal(model[3].weight, weights["3.weight"])


def test_the_older_format_of_torch_save(tmp_path, weights):
    torch.save(weights, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    model = net()
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model[3].weight, weights["3.weight"])


def test_a_wrapper_that_normalises_keeps_its_constants(tmp_path, weights):
    torch.save(weights, tmp_path / "w.pth")
    model = nn.Sequential(collections.OrderedDict(normalize=Normalize([0.5], [0.25]), net=net()))
    notes = load_weights(model, tmp_path / "w.pth")
    assert notes == [
        "'net.' was put before the names",
        "normalize.mean, normalize.std not in it: as the model was built",
    ]
    assert torch.equal(model.net[3].weight, weights["3.weight"])
    assert model.normalize.mean.tolist() == [0.5]


def test_names_that_the_model_itself_has_are_left(tmp_path, weights):
    model = nn.Sequential(collections.OrderedDict(module=net()))
    torch.save(prefixed(weights, "module."), tmp_path / "w.pth")
    assert load_weights(model, tmp_path / "w.pth") == []


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_bomb_does_not_go_off(tmp_path, weights, zipped):
    bomb = Bomb(str(tmp_path / "exploded"))
    torch.save({"state_dict": weights, "x": bomb}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(uiat.UserError, match=r"w\.pth .* holds Python objects .* posix.mkdir; nothing in it was run"):
        load_weights(net(), tmp_path / "w.pth")
    assert not (tmp_path / "exploded").exists()


def test_a_whole_model_is_not_unpickled(tmp_path):
    torch.save(net(), tmp_path / "w.pth")
    with pytest.raises(uiat.UserError, match=r"Sequential; nothing in it was run: save the model's state_dict alone"):
        load_weights(net(), tmp_path / "w.pth")


def first(path):
    return path.read_bytes()[: path.stat().st_size // 2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a readable file of weights|damaged"),
        (b"\x00\x01garbage" * 50, "damaged or holds|not a readable"),
        (b"  <!DOCTYPE html><html>quota exceeded", "is a web page and holds no weights"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, content, says):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(uiat.UserError, match=rf"w\.pth.*({says})"):
        load_weights(net(), tmp_path / "w.pth")


def test_a_truncated_file_is_named(tmp_path, weights):
    torch.save(weights, tmp_path / "a.pth")
    (tmp_path / "w.pth").write_bytes(first(tmp_path / "a.pth"))
    with pytest.raises(uiat.UserError, match=r"w\.pth is"):
        load_weights(net(), tmp_path / "w.pth")


def test_a_missing_file(tmp_path):
    with pytest.raises(uiat.UserError, match="no such file"):
        load_weights(net(), tmp_path / "w.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"w": {"a": torch.ones(1), "b": 2}}])
def test_a_file_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(uiat.UserError, match="holds no named weights"):
        load_weights(net(), tmp_path / "w.pth")


def test_names_that_do_not_fit_are_said_in_one_line_with_the_nearest(tmp_path, weights):
    renamed = {("3.wieght" if name == "3.weight" else name): value for name, value in weights.items()}
    torch.save(renamed, tmp_path / "w.pth")
    with pytest.raises(uiat.UserError) as caught:
        load_weights(net(), tmp_path / "w.pth")
    assert "missing 3.weight (the nearest is 3.wieght); unexpected 3.wieght" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit(tmp_path, weights):
    torch.save(weights | {"3.bias": torch.zeros(7)}, tmp_path / "w.pth")
    with pytest.raises(uiat.UserError, match=r"do not fit the model: 3.bias is \(7,\) and not \(4,\)"):
        load_weights(net(), tmp_path / "w.pth")


def test_a_model_is_left_as_it_was_where_the_weights_do_not_fit(tmp_path, weights):
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({name: value for name, value in weights.items() if name != "3.bias"}, tmp_path / "w.pth")
    with pytest.raises(uiat.UserError, match=r"missing 3\.bias"):
        load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_weights_of_a_run_go_into_a_model_of_its_name(tmp_path):
    spec = {"name": "small-cnn", "num_classes": 4, "image_shape": [1, 8, 8], "width": 4}
    model = uiat.models.build(**spec, mean=[0.3], std=[0.4])
    save_weights(tmp_path / "best.safetensors", model, spec=spec, threat=None)
    other = uiat.models.build(**spec)
    assert load_weights(other, tmp_path / "best.safetensors") == []
    assert other.normalize.mean.tolist() == model.normalize.mean.tolist()


def test_a_folder_is_said_to_be_one_with_the_weights_to_give(tmp_path, weights):
    with pytest.raises(uiat.UserError, match=f"{tmp_path} is a folder: give a file of weights in it"):
        load_weights(net(), tmp_path)
    write_tensors(tmp_path / "best.safetensors", weights, {})
    with pytest.raises(uiat.UserError, match=rf"is a folder: give its {tmp_path}/best\.safetensors"):
        load_weights(net(), tmp_path)
