"""`uiat report`: what it refuses in one line, and the pictures that it makes."""

import shutil

import pytest
import torch

from support.run_folders import ACCURACY, write_run
from uiat.cli import main
from uiat.experiments.predictions import _chosen

DAMAGES = {
    "metrics": ("metrics.jsonl", 'x\n{"epoch": 1}\n', "metrics.jsonl is damaged in line 1"),
    "evaluation": ("evaluation.json", '{"accuracy": ', "evaluation.json is damaged: evaluate the run again (it does"),
    "result": ("evaluation.json", '{"accuracy": {"clean": "x"}}', "evaluation.json is damaged: evaluate the run again"),
    "environment": ("environment.json", "[]", "environment.json is damaged"),
    "config": ("config.yaml", "- name\n", "config.yaml is damaged: it does not hold the settings of a run"),
    "inverse": ("inverse.safetensors", "junk", "is not a readable safetensors file"),
}


@pytest.mark.parametrize(("name", "content", "says"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_one_clear_line(tmp_path, capsys, name, content, says):
    run = write_run(tmp_path / "a", accuracy=ACCURACY)
    (run / name).write_text(content)
    assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_what_is_no_run_is_refused(tmp_path, capsys):
    run, empty = write_run(tmp_path / "a"), tmp_path / "empty"
    empty.mkdir()
    for words, says in [
        (["report"], "name at least one run folder"),
        (["report", str(empty)], "is not a run folder: it has no config.yaml"),
        (["report", str(run), f"{run}/../a"], "is named twice"),
        (["report", str(run), "--out", str(tmp_path / "r.pdf")], "should end in .html"),
        (["report", str(run), "--out", str(run / "config.yaml" / "r.html")], "is not a folder"),
    ]:
        assert main(words) == 2
        assert says in capsys.readouterr().err


def test_a_table_is_printed_alone(tmp_path, capsys):
    run, out = write_run(tmp_path / "a", accuracy=ACCURACY), str(tmp_path / "r.html")
    assert main(["report", str(run), "--table", "markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Accuracy in percent on 10,000 test images")
    assert printed.endswith("|\n")
    assert main(["report", str(run), "--table", "latx"]) == 2
    assert main(["report", str(run), "--table", "latex", "--out", out]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'latex'" in error
    assert "leave --out away" in error
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_command_makes_its_pictures(trained_runs, tmp_path, capsys, unchecked):
    run, out = shutil.copytree(trained_runs / "uiat", tmp_path / "run"), tmp_path / "r.html"
    (run / "evaluation.json").unlink()
    command = ["report", str(run), "--out", str(out), "--images", "40", "--shown", "3"]
    assert main(command) == 0
    html = out.read_text()
    assert "Inverse: the universal perturbation of the true class" in html
    assert html.count('class="card"') == 3
    assert "PGD-20, 40 images" not in html  # four images a class are too few for a confusion matrix
    examples = ["--save-examples", str(run / "examples.safetensors")]
    assert main(["evaluate", str(run), "--attacks", "fgsm", "--n", "40", *examples]) == 0
    assert main(command) == 0
    assert "examples in examples.safetensors" in out.read_text()
    (run / "best.safetensors").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert "no pictures of" in capsys.readouterr().out


def test_pictures_are_of_images_that_the_attack_turns():
    y, telling = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([False, True, False, False, True, False])
    assert _chosen(y, 3, telling=telling).tolist() == [1, 4, 5]
    assert _chosen(y, 5, telling=telling).tolist() == [0, 1, 2, 4, 5]
    assert _chosen(y, 2, telling=~telling).tolist() == [0, 2]
