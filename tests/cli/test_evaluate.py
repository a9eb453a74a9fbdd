"""`uiat evaluate`: what it prints, its mistakes, the log, and processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import uiat
from support import helpers
from support.commands import fitted, result
from support.paths import ROOT
from uiat.attacks import Square
from uiat.system.tensor_files import read_tensors


def test_evaluate_writes_the_result_twice_and_prints_it(ask, run, tmp_path):
    words = ["--attacks", "pgd-2, cw-2", "--n", 50, "--batch-size", 20, "--json", tmp_path / "a.json"]
    code, out, err = ask("evaluate", run, *words, "--threat", "Linf:8/255", "--which", "last")
    assert (code, err) == (0, "")
    result = json.loads((run / "evaluation.json").read_text())
    assert result == json.loads((tmp_path / "a.json").read_text())
    assert list(result["accuracy"]) == ["clean", "pgd-2", "cw-2", "worst"]
    facts = [result[key] for key in ("n", "which", "data", "split", "seed", "batch_size", "run")]
    assert facts == [50, "last", "digits", "test", 0, 20, "digits-uiat"]
    assert result["threat"] == f"Linf:{8 / 255:.7g}"
    assert "threat model Linf 8/255" in out
    assert re.search(r"worst +\d+\.\d\d % +\d+\.\d\d - \d+\.\d\d +50", out)


@pytest.mark.parametrize("words", [["--json"], ["--json", "-"], ["--json", "--n", 20]])
def test_json_alone_is_on_standard_output_and_all_else_is_not(ask, run, words):
    code, out, err = ask("evaluate", *words, run, "--attacks", "fgsm", *([] if "--n" in words else ["--n", 20]))
    assert code == 0
    assert json.loads(out) == json.loads((run / "evaluation.json").read_text())
    assert "digits-uiat, best weights" in err
    assert f"written: {run / 'evaluation.json'}" in err


def test_the_folder_after_json_is_the_run_and_a_mistake_prints_nothing(ask, run):
    code, out, err = ask("evaluate", "--json", run, "--attacks", "pdg-3")
    assert (code, out) == (2, "")
    assert "unknown attack 'pdg-3'" in err


def test_certify_prints_what_is_proved_beside_what_attacks_left(ask, run):
    code, out, err = ask("evaluate", run, "--attacks", "pgd-5", "--n", 20, "--threat", "Linf:0.002", "--certify")
    assert (code, err) == (0, "")
    record = json.loads((run / "evaluation.json").read_text())
    certified, attacked = record["certified"]["accuracy"], record["accuracy"]["worst"]
    assert 0 <= certified <= attacked
    assert f"[certified, attacked]: [{100 * certified:.2f} %, {100 * attacked:.2f} %]" in out
    assert not any(
        proof and broken for proof, broken in zip(record["certified"]["certified_by"], record["broken_by"], strict=True)
    )
    code, _, err = ask("evaluate", run, "--threat", "L2:0.1", "--certify")
    assert (code, "interval and linear bounds are for Linf, not L2" in err) == (2, True)


def test_smoothing_is_certified_by_either_name(ask, run):
    code, out, err = ask("evaluate", run, "--n", 5, "--attacks", "clean,certify-smoothing-0.25-100", "-v")
    assert (code, err) == (0, "")
    record = json.loads((run / "evaluation.json").read_text())
    assert "certified accuracy at L2 radius: " in out
    code, _, err = ask("evaluate", run, "--n", 5, "--attacks", "clean", "--certify", "smoothing-0.25-100")
    again = json.loads((run / "evaluation.json").read_text())["smoothing"]["certify-smoothing-0.25-100"]
    assert (code, again["radii"]) == (0, record["smoothing"]["certify-smoothing-0.25-100"]["radii"])
    assert not list(run.glob("evaluation-state*"))
    code, _, err = ask("evaluate", run, "--attacks", "certify-smoothing-0")
    assert (code, "certify-smoothing-0: sigma must be above 0, but is 0" in err) == (2, True)


def test_until_stops_early_and_the_record_says_so(ask, run):
    words = ["--n", 200, "--attacks", "fgsm", "--until", 0.3, "--certify", "smoothing-0.25-10"]
    code, out, err = ask("evaluate", run, *words)
    assert (code, err) == (0, "")
    record = json.loads((run / "evaluation.json").read_text())
    done, sample, found = record["n"], record["sample"], record["until"]
    assert 50 <= done < 200
    assert (found["of"], found["done"], found["stopped"], found["width"]) == (200, done, True, 0.3)
    assert (sample["rule"], len(set(sample["index"]))) == ("random", done)
    assert len(record["smoothing"]["certify-smoothing-0.25-10"]["radii"]) == done
    assert f"{done:,} of 200 images: between " in out
    assert f"stopped early: of 200 images {done}, in random order, are done" in out
    assert "stopped early" in ask("show", run)[1]


def test_help_says_defaults_and_units(ask):
    out = ask("evaluate", "--help")[1]
    assert "in units of the image range [0, 1]" in " ".join(out.split())
    assert "[default: best]" in " ".join(out.split())


EVALUATION_MISTAKES = {
    "calls": (["--calls", "10", "--wrong-calls", "11"], "11 wrong calls cannot be among 10"),
    "until": (["--until", "1.5"], "until must be below 1, but is 1.5"),
    "until and calls": (["--until", "0.1", "--calls", "3"], "both --until and --calls: that goes through all images"),
    "attack": (["--attacks", "clean,pdg-20"], "unknown attack 'pdg-20'; did you mean 'pgd-K'"),
    "none": (["--n", "0"], "--n"),
    "too many": (["--n", "100000"], "--n 100000 is more than the 539 test images of digits"),
    "number": (["--n", "ten"], "--n"),
    "weights": (["--which", "bst"], "did you mean 'best'"),
    "pixels": (["--threat", "Linf:8"], 'did you mean "8/255"'),
    "norm": (["--threat", "Lnf:8/255"], "did you mean 'Linf'"),
    "option": (["--atacks", "clean"], "--attacks"),
    "folder": (["--json", "missing/a.json"], "there is no folder missing"),
    "no file": (["--json", "/dev/null"], "not a regular file"),
    "device": (["--device", "nonsense"], "device 'nonsense' cannot be used"),
}


@pytest.mark.parametrize(("words", "says"), EVALUATION_MISTAKES.values(), ids=EVALUATION_MISTAKES)
def test_a_mistaken_evaluation_is_one_line(ask, trained, words, says):
    code, out, err = ask("evaluate", trained, *words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (trained / "evaluation.json").exists()


def test_damaged_weights_are_named(ask, run):
    (run / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:100])
    code, _, err = ask("evaluate", run)
    assert code == 2
    assert "best.safetensors is not a readable safetensors file" in err


def test_an_interrupted_evaluation_ends_in_one_line(ask, trained, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(uiat.evaluation.evaluator, "evaluate", stop)
    code, _, err = ask("evaluate", trained)
    assert code == 130
    assert err == "uiat: stopped\n"


def test_an_ensemble_is_shown_stage_by_stage_and_the_quick_one_is_called_no_standard(ask, run):
    code, out, _ = ask("evaluate", run, "--attacks", "autoattack-quick", "--n", "20")
    assert code == 0
    assert out.index("after apgd-ce") < out.index("after apgd-t") < out.index("\n autoattack-quick ")
    assert "no substitute for autoattack" in out
    assert list(json.loads((run / "evaluation.json").read_text())["stages"]["autoattack-quick"]) == [
        "apgd-ce",
        "apgd-t",
    ]


def test_the_log_has_a_line_after_each_attack_and_one_in_the_end(ask, run):
    _, out, _ = ask("evaluate", run, "--attacks", "fgsm,pgd-2", "--n", 10, "-v")
    lines = [line for line in out.splitlines() if "robust accuracy" in line]
    accuracy = {name: f"{100 * share:.2f}%" for name, share in result(run)["accuracy"].items()}
    assert lines[0].startswith(f"robust accuracy after FGSM: {accuracy['fgsm']} (total time ")
    assert lines[1].startswith(f"robust accuracy after PGD-2: {accuracy['pgd-2']} (total time ")
    assert lines[2:] == [f"robust accuracy: {accuracy['worst']}"]


def test_the_verdict_is_kept_and_printed(ask, run):
    code, out, _ = ask("evaluate", run, "--attacks", "fgsm", "--n", 40)
    assert code == 0
    assert "40 images" in result(run)["verdict"]
    assert f"verdict: {result(run)['verdict']}" in out


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
    code, out, err = ask("evaluate", *own, *words)
    assert (code, err) == (0, "")
    assert "warning: not run: fgsm, which need a gradient" in out
    assert "warning: sweep: not measured" in out
    assert "verdict: do not believe this number: the output has no gradient" in out
    found = result(Path("result"))
    assert list(found["accuracy"]) == ["clean", "square", "worst"]
    assert found["not_measured"] == ["sweep"]
    assert found["verdict"].startswith("do not believe")
    assert ask("evaluate", *own, *words)[0] == 0  # no state is in the way


def test_a_killed_evaluation_is_resumed_to_the_same_result(ask, run, tmp_path):
    words = [str(run), "--attacks", "pgd-20,apgd-ce,apgd-dlr", "--n", "40", "--out"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "uiat", "evaluate", *words, str(tmp_path / "killed")]
    state = tmp_path / "killed" / "evaluation-state.safetensors"
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    # It is written at the start and after each stage: once the first attack has ended, two are left.
    while not (state.exists() and "pgd-20" in read_tensors(state)[1]["tally"]["after"]) and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert state.exists()
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    assert ask("evaluate", *words, tmp_path / "killed", "--resume")[0] == 0
    assert ask("evaluate", *words, tmp_path / "whole")[0] == 0
    killed, whole = result(tmp_path / "killed"), result(tmp_path / "whole")
    for name in ("accuracy", "broken_by", "stages", "intervals", "per_class", "verdict"):
        assert killed[name] == whole[name]
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["evaluation.json"]


@pytest.mark.slow
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
