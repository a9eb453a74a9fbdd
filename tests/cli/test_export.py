"""`uiat export`: what it prints, and what it refuses."""

from uiat.cli import main


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
