"""What an evaluation writes, keeps, and resumes."""

import json
import re

import pytest
import torch

import uiat
from support.commands import result
from uiat.errors import UserError
from uiat.experiments import evaluate
from uiat.system.tensor_files import read_tensors


@pytest.mark.parametrize("name", ["keep_earlier", "write_record"])
def test_a_result_that_cannot_go_to_the_run_still_goes_to_the_file(ask, run, tmp_path, monkeypatch, name):
    (run / "evaluation.json").write_text("earlier")
    real = getattr(evaluate, name)

    def fail(path, *arguments):
        if path.parent == run:
            raise UserError(f"cannot write {path}: No space left on device")
        return real(path, *arguments)

    monkeypatch.setattr(evaluate, name, fail)
    code, out, err = ask("evaluate", run, "--attacks", "clean", "--json", tmp_path / "a.json")
    assert code == 2
    assert "cannot write" in err
    assert re.search(r"clean +\d", out)
    assert json.loads((tmp_path / "a.json").read_text())["n"] == 539
    assert (run / "evaluation.json").read_text() == "earlier"


def test_without_a_folder_nothing_is_kept(ask, own, tmp_path):
    before = {path.name for path in tmp_path.iterdir()}
    assert ask("evaluate", *own, "--attacks", "clean", "--n", 20)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} - before <= {"__pycache__"}


def test_records_of_all_kinds(ask, run, tmp_path):
    files = {name: tmp_path / name for name in ("adv.safetensors", "bench.json", "log.txt")}
    words = ["--save-examples", files["adv.safetensors"], "--robustbench-json", files["bench.json"], "-v"]
    words += ["--log-file", files["log.txt"], "--epsilons=-0.05,0,0.05,...,0.2", "--sweep-attack", "pgd-2"]
    code, out, err = ask("evaluate", run, "--attacks", "fgsm,autoattack-quick", "--n", 12, *words)
    assert (code, err) == (0, "")
    found = result(run)
    assert set(found["intervals"]) == set(found["per_class"]) == set(found["accuracy"])
    assert found["passes"]["fgsm"]["backward"] > 0
    assert {"ece", "bins", "attacked"} == set(found["calibration"])
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


def test_a_stopped_evaluation_is_resumed_to_the_same_result(ask, run, monkeypatch):
    words = [run, "--attacks", "pgd-3,cw-3", "--n", 40, "--batch-size", 10]
    assert ask("evaluate", *words)[0] == 0
    whole = result(run)
    (run / "evaluation.json").unlink()
    seen = []

    def interrupt(self, stage, share):
        seen.append(stage)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("uiat.cli.evaluation_progress.EvaluationLines.bound", interrupt)
        code, _, err = ask("evaluate", *words)
    assert code == 130
    assert f"the same command with --resume resumes from {run / 'evaluation-state.safetensors'}" in err
    assert err.count("\n") == 1
    code, _, err = ask("evaluate", *words)
    assert code == 2
    assert "holds the state of an evaluation" in err
    code, _, err = ask("evaluate", *words, "--resume")
    assert (code, err) == (0, "")
    again = result(run)
    for name in ("accuracy", "broken_by", "stages", "intervals"):
        assert again[name] == whole[name]
    assert not (run / "evaluation-state.safetensors").exists()


def test_resuming_what_has_not_begun_begins(ask, run):
    assert ask("evaluate", run, "--attacks", "clean", "--n", 20, "--resume")[0] == 0


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_a_damaged_state_file_is_named_and_left(ask, run, content):
    state = run / "evaluation-state.safetensors"
    state.write_bytes(content)
    code, _, err = ask("evaluate", run, "--attacks", "clean", "--resume")
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
        assert ask("evaluate", run, "--attacks", "pgd-2", "--n", 20)[0] == 130
    code, _, err = ask("evaluate", run, "--attacks", "pgd-2", "--n", 20, "--seed", 1, "--resume")
    assert code == 2
    assert "is the state of another evaluation: not the same seed" in err


def test_an_earlier_result_is_kept(ask, run):
    for number, attack in enumerate(("clean", "fgsm", "pgd-2")):
        code, out, _ = ask("evaluate", run, "--attacks", attack, "--n", 10)
        assert code == 0
        assert (f"kept: {run / 'evaluation-'}{number}.json" in out) is (number > 0)
    kept = [json.loads((run / name).read_text()) for name in ("evaluation-1.json", "evaluation-2.json")]
    assert [list(record["accuracy"]) for record in kept] == [["clean", "worst"], ["clean", "fgsm", "worst"]]
    assert "pgd-2" in result(run)["accuracy"]


def test_the_batch_size_in_the_record_is_the_one_that_was_used(ask, run, monkeypatch):
    monkeypatch.setattr("uiat.speed.fast_copy.CPU_BYTES", 100)  # as a large network has it
    assert ask("evaluate", run, "--attacks", "clean", "--n", 30, "--batch-size", 25)[0] == 0
    assert (result(run)["batch_size"], result(run)["processes"]) == (16, 1)
