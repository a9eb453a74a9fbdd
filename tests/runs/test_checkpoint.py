import io
import json
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim import SGD, AdamW

import uiat
from support import tiny
from support.tiny import Killed, Killer
from uiat import UserError, models
from uiat.runs.checkpoint import load, load_state, save_state, save_weights
from uiat.system.tensor_files import read_tensors, write_tensors
from uiat.training.open_run import reopen_run

SPEC = {"name": "small-cnn", "num_classes": 10, "image_shape": [1, 8, 8], "width": 4}


def saved(folder, *, spec=SPEC, threat=None, which="best", **facts):
    model = models.build(**{**SPEC, "image_shape": (1, 8, 8)})
    save_weights(folder / f"{which}.safetensors", model, spec=spec, threat=threat, **facts)
    return model


def altered(path, **changes):
    """The file again, with other metadata; a value of None leaves the key out."""
    tensors, meta = read_tensors(path)
    write_tensors(path, tensors, {k: v for k, v in {**meta, **changes}.items() if v is not None})


@pytest.mark.parametrize("threat", [None, uiat.Linf("8/255"), uiat.L2(0.5)])
def test_round_trip(tmp_path, threat):
    best, last = saved(tmp_path, threat=threat), saved(tmp_path, which="last", threat=threat)
    x = torch.rand(3, 1, 8, 8)
    for which, model in (("best", best), ("last", last)):
        loaded = load(tmp_path, which)
        assert not loaded.training
        assert loaded.threat == threat
        assert torch.equal(loaded(x), model.eval()(x))
    assert torch.equal(load(tmp_path / "last.safetensors")(x), last(x))
    assert torch.equal(load(str(tmp_path))(x), best(x))


def test_load_says_what_is_missing(tmp_path, unchecked):
    with pytest.raises(UserError, match="no run folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no best.safetensors: no epoch of it has ended yet"):
        load(tmp_path)
    with pytest.raises(UserError, match="unknown weights 'bets'; did you mean 'best'"):
        load(tmp_path, "bets")
    with pytest.raises(UserError, match="no universal perturbations"):
        uiat.load_inverse(tmp_path)


def test_weights_into_a_model_of_ones_own(tmp_path):
    saved(tmp_path, spec={"name": "custom", "num_classes": 10, "image_shape": [1, 8, 8]})
    with pytest.raises(UserError, match="pass model="):
        load(tmp_path)
    model = models.build(**SPEC)
    assert load(tmp_path, model=model) is model
    with pytest.raises(UserError, match="do not fit the model: size mismatch"):
        load(tmp_path, model=models.build(**{**SPEC, "width": 8}))
    with pytest.raises(UserError, match="do not fit the model: Missing key"):
        load(tmp_path, model=nn.Linear(2, 2))


# What nobody should run


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, fuse):
        self.fuse = fuse

    def __reduce__(self):
        return (os.mkdir, (str(self.fuse),))


def pickled(fuse):
    return pickle.dumps({"w": Bomb(fuse)})


def torch_saved(fuse):
    content = io.BytesIO()
    torch.save({"w": torch.zeros(2), "bomb": Bomb(fuse)}, content)
    return content.getvalue()


def header(size, text):
    return lambda fuse: struct.pack("<Q", size) + text


FOREIGN = {
    "pickle": pickled,
    "torch.save": torch_saved,
    "empty": lambda fuse: b"",
    "text": lambda fuse: b"hello, this is not a checkpoint",
    "huge header": header(1 << 40, b"{}"),
    "not json": header(8, b"pickle!!"),
    "list": header(8, b"[]      "),
    "beyond the end": header(64, json.dumps({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()),
    "negative": header(66, json.dumps({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode()),
    "deep": header(200_000, b"[" * 200_000),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused_and_nothing_runs(kind, tmp_path):
    fuse = tmp_path / "fuse"
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(uiat.dump(tiny.run()))
    for name in ("best", "last", "inverse", "checkpoint"):
        (folder / f"{name}.safetensors").write_bytes(FOREIGN[kind](fuse))
    for act in (load, uiat.load_inverse, uiat.resume, lambda run: load(run, "last")):
        with pytest.raises(UserError, match="not a readable safetensors file"):
            act(folder)
    assert not fuse.exists()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(share, tmp_path):
    saved(tmp_path)
    content = (tmp_path / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load(tmp_path)


def test_other_programs_weights_are_refused(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "best.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "inverse.safetensors", metadata={"kind": "theirs"})
    with pytest.raises(UserError, match="does not hold the weights of a uiat run"):
        load(tmp_path)
    with pytest.raises(UserError, match="is not a file of universal inverse perturbations"):
        uiat.load_inverse(tmp_path)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        7,
        "small-cnn",
        ["small-cnn"],
        {},
        {"name": "small-cnn"},
        {**SPEC, "num_classes": "ten"},
        {**SPEC, "image_shape": 8},
        {**SPEC, "image_shape": [1, 8, "8"]},
        {**SPEC, "width": [4]},
        {**SPEC, "width": 10**9},
        {**SPEC, "pretrained": True},
        {**SPEC, "activation": "os.system"},
        {**SPEC, "name": ["small-cnn"]},
        {**SPEC, "name": "os:system"},
        {**SPEC, "name": "evil.py:net"},
        {**SPEC, "name": "timm:hf-hub:someone/something"},
        {**SPEC, "name": "timm:local-dir:/tmp"},
        {**SPEC, "mean": "a"},
        {**SPEC, "num_classes": 3},
    ],
    ids=str,
)
@pytest.mark.usefixtures("unchecked")
def test_a_description_of_the_model_that_is_none(spec, tmp_path):
    saved(tmp_path)
    altered(tmp_path / "best.safetensors", model=spec)
    with pytest.raises(UserError):
        load(tmp_path)


@pytest.mark.parametrize("threat", [7, "Linf", "Linf:255", "Linf:nan", {"a": 1}, "__import__('os'):1", ["Linf:0.1"]])
def test_a_threat_model_that_is_none(threat, tmp_path):
    saved(tmp_path)
    altered(tmp_path / "best.safetensors", threat=threat)
    with pytest.raises(UserError):
        load(tmp_path)


def test_inverse_perturbations_of_the_wrong_kind(tmp_path):
    path = tmp_path / "inverse.safetensors"
    for tensors, meta in [
        ({}, {"kind": "uiat.inverse"}),
        ({"z": torch.zeros(3)}, {"kind": "uiat.inverse", "threat": "Linf:0.1"}),
        ({"z": torch.zeros(2, 1, 8, 8)}, {"kind": "uiat.inverse"}),
        ({"z": torch.zeros(2, 1, 8, 8)}, {"kind": "uiat.inverse", "threat": {"norm": "Linf"}}),
        ({"z": torch.zeros(2, 1, 8, 8)}, {"kind": ["uiat.inverse"], "threat": "Linf:0.1"}),
    ]:
        write_tensors(path, tensors, meta)
        with pytest.raises(UserError):
            uiat.load_inverse(tmp_path)


# Training state


def stepped(kind, *, channels_last=True):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    make = {"sgd": lambda p: SGD(p, lr=0.1, momentum=0.9, fused=True), "adamw": lambda p: AdamW(p, lr=0.01, fused=True)}
    return model, make[kind](model.parameters())


def advance(model, optimizer):
    x = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_state_goes_on_bit_for_bit_in_either_memory_format(kind, channels_last, tmp_path):
    model, optimizer = stepped(kind, channels_last=channels_last)
    advance(model, optimizer)
    path = tmp_path / "state.safetensors"
    save_state(path, modules={"model": model}, optimizer=optimizer, tensors={"s": torch.ones(2)}, meta={"a": [1, None]})
    advance(model, optimizer)
    other, again = stepped(kind, channels_last=channels_last)
    tensors, meta = load_state(path, modules={"model": other}, optimizer=again)
    assert (tensors["s"].tolist(), meta) == ([1, 1], {"a": [1, None]})
    for p, state in again.state.items():  # a fused optimiser walks both in the order in which they lie in memory
        assert all(value.stride() == p.stride() for value in state.values() if value.ndim)
    advance(other, again)  # the random state came back too
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert tiny.same(a, b)


def state_file(tmp_path):
    model, optimizer = stepped("sgd")
    advance(model, optimizer)
    path = tmp_path / "state.safetensors"
    save_state(path, modules={"model": model}, optimizer=optimizer, tensors={}, meta={})
    return path, model, optimizer


@pytest.mark.parametrize(
    "changes",
    [
        {"scalars": None},
        {"scalars": 5},
        {"scalars": {"a": {}}},
        {"groups": None},
        {"groups": []},
        {"groups": [5]},
        {"groups": [{"params": []}]},
        {"meta": None},
        {"meta": 5},
    ],
    ids=str,
)
def test_state_that_is_none(changes, tmp_path):
    path, model, optimizer = state_file(tmp_path)
    altered(path, **changes)
    with pytest.raises(UserError, match="is damaged or was written by another version"):
        load_state(path, modules={"model": model}, optimizer=optimizer)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("optimizer/0/momentum_buffer", torch.zeros(2)),  # a fused step would read past its end
        ("optimizer/99/momentum_buffer", torch.zeros(2)),
        ("optimizer/x/momentum_buffer", torch.zeros(2)),
        ("random/cpu", torch.zeros(3, dtype=torch.uint8)),
        ("random/cpu", None),
        ("model/0.weight", torch.zeros(2)),
        ("model/0.weight", None),
    ],
)
def test_state_that_does_not_fit(name, tensor, tmp_path):
    path, model, optimizer = state_file(tmp_path)
    tensors, meta = read_tensors(path)
    tensors = {k: v for k, v in {**tensors, name: tensor}.items() if v is not None}
    write_tensors(path, tensors, meta)
    with pytest.raises(UserError):
        load_state(path, modules={"model": model}, optimizer=optimizer)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(Killed):
        uiat.train(tiny.run(), run_dir=folder, listener=Killer(5))
    (folder / "manifest.json").unlink()  # which would refuse all that is tried here: the checks behind it have to, too
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", -1),
        ("epoch", 99),
        ("epoch", "one"),
        ("position", 99),
        ("position", None),
        ("history", {}),
        ("best", 3),
        ("seconds", "long"),
        ("steps_per_epoch", 4),
        ("run", None),
        ("data", None),
    ],
)
def test_a_position_that_is_none(name, value, interrupted):
    path = interrupted / "checkpoint.safetensors"
    before, meta = path.read_bytes(), read_tensors(path)[1]
    altered(path, meta={**meta["meta"], name: value})
    try:
        with pytest.raises(UserError):
            uiat.resume(interrupted)
    finally:
        path.write_bytes(before)


def test_a_checkpoint_sets_nothing_but_the_position(interrupted):
    path = interrupted / "checkpoint.safetensors"
    before, meta = path.read_bytes(), read_tensors(path)[1]
    altered(path, meta={**meta["meta"], "fit": "evil", "model": "evil"})
    with reopen_run(interrupted) as training:
        assert callable(training.fit)
        assert isinstance(training.model, nn.Module)
    path.write_bytes(before)


def test_weights_are_no_checkpoint(interrupted):
    path = interrupted / "checkpoint.safetensors"
    before = path.read_bytes()
    path.write_bytes((interrupted / "best.safetensors").read_bytes())
    with pytest.raises(UserError, match="is not a training checkpoint"):
        uiat.resume(interrupted)
    path.write_bytes(before)
    (interrupted / "best.safetensors").rename(interrupted / "kept")
    (interrupted / "best.safetensors").write_bytes(before)
    with pytest.raises(UserError, match="does not hold the weights"):
        uiat.load(interrupted)
    (interrupted / "kept").rename(interrupted / "best.safetensors")


@pytest.mark.parametrize(
    "spec",
    [
        SPEC | {"pretrained": True},
        SPEC | {"num_classes": "10"},
        SPEC | {"image_shape": [1, 8]},
        SPEC | {"mean": "ab"},
        {"name": "small-cnn", "num_classes": 10},
        {},
    ],
)
def test_a_model_is_described_by_its_architecture_and_nothing_else(tmp_path, monkeypatch, spec):
    saved(tmp_path)
    tensors, meta = read_tensors(tmp_path / "best.safetensors")
    write_tensors(tmp_path / "best.safetensors", tensors, meta | {"model": spec})
    monkeypatch.setattr(models, "build", lambda *given, **how: pytest.fail("a model is built"))
    with pytest.raises(
        UserError, match=r"best\.safetensors is damaged .* of its model is missing, unknown or impossible"
    ):
        load(tmp_path)
