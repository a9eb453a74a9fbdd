"""`uiat export`: what it prints, and what it refuses."""

from pathlib import Path

import pytest
import torch

from support.commands import OWN, ask  # noqa: F401 - a fixture
from support.objectives import write_objective
from uiat import UserError
from uiat.cli import main
from uiat.cli.export import _upload
from uiat.experiments.export import formats
from uiat.runs.checkpoint import load


def test_it_says_what_it_wrote_and_checked(evaluated_run, tmp_path, capsys):
    assert main(["export", str(evaluated_run), "--to", "pytorch", "--out", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert f"written: {tmp_path / 'new' / 'model.py'}" in out
    assert "read back: the logits of 64 test images are the model's" in out


def test_mistakes_are_one_line(evaluated_run, tmp_path, capsys):
    for words, says in (
        (["--to", "onxx"], "did you mean 'onnx'"),
        (["--to", "pytorch", "--push", "me/mine"], "--push uploads the layout of the Hub"),
        ([], "--to"),
    ):
        assert main(["export", str(evaluated_run), *words, "--out", str(tmp_path / "x")]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_run_of_an_own_objective_and_an_own_model_is_exported_where_code_is_allowed(ask, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(formats, "_read_back", lambda bundle, folder, script: 0.0)  # tested with the formats
    write_objective(Path("mine.py"))
    Path("net.py").write_text(OWN)
    words = ["objective.name=mine.py:LogitPairing", "model.name=net.py:net", "data.subset=100", "validation.steps=1"]
    assert ask("train", "digits-pgd-at", *words, "optimisation.epochs=1", "--run-dir", "run")[0] == 0
    Path("mine.py").unlink()  # the weights need no code of the objective
    code, _, err = ask("export", "run", "--to", "torch-export")
    assert (code, "net.py:net" in err, "--own-code" in err) == (2, True, True)
    assert not Path("run/export-torch-export").exists()
    x = torch.rand(3, 1, 8, 8)
    assert ask("export", "run", "--to", "torch-export", "--own-code")[0] == 0
    program = torch.export.load("run/export-torch-export/model.pt2").module()
    torch.testing.assert_close(program(x), load("run", own_code=True)(x))
    assert ask("export", "run", "--to", "pytorch", "--own-code")[0] == 0
    assert Path("run/export-pytorch/model.py").is_file()  # of layers of torch alone, and so there is a source


def test_an_upload_without_a_network_is_one_line_and_the_folder_is_written(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    class ConnectError(Exception):
        """As httpx raises it: no OSError."""

    def create_repo(*given, **how):
        raise ConnectError("no route to host")

    monkeypatch.setattr(hub.HfApi, "create_repo", create_repo)
    with pytest.raises(UserError, match="new is written, but could not be uploaded to me/x: no route to host"):
        _upload(tmp_path / "new", "me/x")
