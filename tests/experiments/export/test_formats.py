"""Each format read back: the same logits and accuracy, and a refusal where they are not."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from uiat.errors import UserError
from uiat.experiments.export import export_run, formats
from uiat.experiments.export.bundle import open_bundle
from uiat.models.source import to_source
from uiat.runs.checkpoint import load


@pytest.fixture
def bundle(evaluated_run):
    return open_bundle(evaluated_run, which="best", own_code=False, root=None)


def logits_of(folder, name, images):
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    return torch.export.load(folder / "model.pt2").module()(images)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_any_batch_size_has_the_models_logits(evaluated_run, tmp_path, bundle, to):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    done = export_run(evaluated_run, to, out=tmp_path / "new")
    assert done.difference <= 1e-5
    for n in (1, 5):
        torch.testing.assert_close(logits_of(done.folder, to, bundle.images[:n]), bundle.logits[:n], rtol=0, atol=1e-4)


def test_a_folder_for_pytorch_says_what_it_takes(evaluated_run, tmp_path):
    done = export_run(evaluated_run, "pytorch", out=tmp_path / "new")
    config = json.loads((done.folder / "config.json").read_text())
    assert (config["threat"], config["image_shape"]) == ("Linf:0.2", [1, 8, 8])
    assert set(load(evaluated_run).state_dict()) == set(formats.read_tensors(done.folder / "model.safetensors")[0])


def test_what_computes_something_else_is_refused(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(
        formats, "to_source", lambda model: to_source(model).replace("x.mean((2, 3))", "x.amax((2, 3))")
    )

    with pytest.raises(UserError, match="computes other logits than the run's model"):
        formats.write_pytorch(bundle, tmp_path)


def test_a_folder_that_does_not_load_is_refused_with_its_reason(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "to_source", lambda model: "import no_such_package_anywhere")
    with pytest.raises(UserError, match="cannot be read back: ModuleNotFoundError: No module named 'no_such_package"):
        formats.write_pytorch(bundle, tmp_path)
    assert not list(tmp_path.glob("*check*"))


class Branches(nn.Module):
    """What it computes depends on the values that it sees, which no graph can say."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(x.flatten(1)) * (2.0 if x.mean().item() > 0.5 else 1.0)


class NoOperator(Branches):
    """ONNX has no Bessel functions."""

    def forward(self, x):
        return torch.special.bessel_j0(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("write", "model", "says"),
    [
        ("write_program", Branches, "cannot trace"),
        ("write_onnx", Branches, "cannot be written as ONNX"),
        (
            "write_onnx",
            NoOperator,
            r"cannot be written as ONNX: ONNX has no operator for \w+\.bessel_j0; --to torch-exp",
        ),
    ],
)
def test_a_model_that_cannot_be_written_is_refused_in_one_line(bundle, tmp_path, write, model, says):
    pytest.importorskip("onnxscript")
    with pytest.raises(UserError, match=says) as refused:
        getattr(formats, write)(replace(bundle, model=model().eval()), tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_other_peoples_code_becomes_a_program(bundle, tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            return self.linear(x.flatten(1)).tanh()

    formats.write_pytorch(replace(bundle, model=Own().eval()), tmp_path)
    assert (tmp_path / "model.pt2").is_file()
    assert "torch.export.load" in formats.describe_use("hf", Own())


def test_a_missing_package_is_named(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'uiat\[export\]'"):
        formats.write_onnx(bundle, tmp_path)
