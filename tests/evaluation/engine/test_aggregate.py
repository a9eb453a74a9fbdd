"""The result of an evaluation, in one process and in several: what is in its record."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from support.evaluations import (
    ASKING,
    ATTACKS,
    Threshold,
    correct_images,
    evaluate,
    evaluate_parts,
    evaluate_short,
    images,
    net,
    network,
    ramp,
    to_fit,
)
from support.paths import ROOT, SRC
from uiat import Linf, UserError
from uiat.system.distributed import Rank


def refused(path, words, **options):
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{words}"):
        evaluate_short(path, **{"resume": True} | options)
    assert path.read_bytes() == before


PROCESS = """
import json, sys
import torch, torch.distributed as dist
torch.set_num_threads(1)
from pathlib import Path
import uiat
from support.evaluations import ASKING, evaluate_parts
rank, folder, calls, facts = int(sys.argv[1]), Path(sys.argv[2]), [], {}
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
facts["result"] = evaluate_parts(folder, progress=lambda *words: calls.append(words))
facts["progress"] = bool(calls)
facts["asked"] = evaluate_parts(folder / "asked", **ASKING)
try:
    evaluate_parts(folder)
except uiat.UserError as error:
    facts["refused"] = str(error)
(folder / f"{rank}.json").write_text(json.dumps(facts))
dist.destroy_process_group()
"""


def test_two_processes_come_to_the_verdicts_of_one(tmp_path):
    paths = [str(SRC), str(ROOT / "tests")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    commands = ([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)] for rank in range(2))
    (tmp_path / "asked").mkdir()
    started = [subprocess.Popen(command, env=environment) for command in commands]
    (tmp_path / "alone").mkdir()
    alone = evaluate_parts(tmp_path / "alone")
    assert [process.wait(timeout=200) for process in started] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["result"] == second["result"] == json.loads(json.dumps(alone))
    assert len(set(alone["broken_by"])) > 2
    asked = evaluate_parts(tmp_path / "asked", **ASKING, resume=True)
    assert {**first["asked"], "passes": None} == {**json.loads(json.dumps(asked)), "passes": None}
    assert asked["calls"]["accuracy"] == asked["accuracy"]
    assert (first["progress"], second["progress"]) == (True, False)
    # Each names its own file, and neither waits for the other.
    for rank, facts in enumerate((first, second)):
        assert f"state.rank{rank}-of-2 holds the state of an evaluation" in facts["refused"]
    with pytest.raises(UserError, match=r"state\.rank0-of-2 holds the state of an evaluation"):
        evaluate_parts(tmp_path)
    resumed = evaluate_parts(tmp_path, resume=True)
    assert {**resumed, "passes": None} == {**alone, "passes": None}
    for kind in ("forward", "backward"):  # no attack was run again: the first of them had counted it all
        assert resumed["passes"]["apgd-t"][kind] == alone["passes"]["apgd-t"][kind]
    assert [path.name for path in tmp_path.glob("state*")] == ["state"]


@pytest.mark.usefixtures("short")
def test_a_process_without_images_does_nothing(monkeypatch):
    """One image and two processes, without the outcomes of the other one."""
    x, y = images(1)
    monkeypatch.setattr("uiat.evaluation.evaluator.current_rank", lambda: Rank(1, 2))
    monkeypatch.setattr(Rank, "gather", lambda self, value: [value])
    result = evaluate(net(), x, y, threat=Linf(0.05), attacks=ATTACKS, fit=to_fit())
    assert set(result.accuracy.values()) == {0}  # of one image, none is known to be correct


def test_what_is_in_the_record(tmp_path):
    x, y = ramp()
    result = evaluate(Threshold(), x, y, threat=Linf("8/255"), attacks=["pgd-2", "pgd-2", "clean"], seed=7)
    record = json.loads(json.dumps(result.to_json()))
    assert list(record)[:8] == ["threat", "n", "accuracy", "seconds", "broken_by", "seed", "environment", "stages"]
    assert list(record)[8:12] == ["passes", "stage_seconds", "intervals", "per_class"]
    assert list(record)[12:15] == ["fairness", "calibration", "budgets"]
    assert list(record)[15:20] == ["projected", "warnings", "verdict", "batch_size", "processes"]
    assert list(record)[20:] == ["sums", "calls", "until"]
    assert (record["batch_size"], record["processes"]) == (500, 1)
    assert record["threat"] == "Linf:0.03137255"
    assert (record["n"], record["seed"]) == (11, 7)
    assert list(record["seconds"]) == ["clean", "pgd-2"]
    assert record["environment"]["torch"] == torch.__version__


def test_the_kept_examples_are_what_broke_each_image():
    model, threat = network(), Linf(0.1)
    x, y = correct_images(model)
    y[0] = (y[0] + 1) % 3
    result = evaluate(model, x, y, threat=threat, attacks=["fgsm", "pgd-3", "apgd-t"], keep_examples=True)
    assert {"", "clean", "fgsm"} <= set(result.broken_by)
    broken = torch.tensor([by != "" for by in result.broken_by])
    assert torch.equal(model(result.examples).argmax(dim=1) != y, broken)
    assert (threat.length(result.examples - x) <= 0.1 + 1e-9).all()
    assert torch.equal(result.examples[~broken], x[~broken])
    assert torch.equal(result.examples[0], x[0])
    assert "examples" not in result.to_json()
    assert evaluate(model, x, y, threat=threat, attacks=["fgsm"]).examples is None


def test_what_else_is_in_the_record():
    model = network()
    x, y = correct_images(model)
    result = evaluate(model, x, y, threat=Linf(0.1), attacks=["fgsm", "autoattack-quick"])
    stages = {"clean", "fgsm", "apgd-ce", "apgd-t"}
    assert result.passes.keys() == result.stage_seconds.keys() == result.budgets.keys() == stages
    assert result.passes["clean"] == {"forward": 40, "backward": 0}
    assert result.passes["fgsm"] == {"forward": 80, "backward": 40}
    assert result.passes["apgd-ce"]["forward"] > result.passes["apgd-ce"]["backward"] > 40
    assert result.seconds["autoattack-quick"] == pytest.approx(
        result.stage_seconds["apgd-ce"] + result.stage_seconds["apgd-t"]
    )
    assert result.budgets["apgd-t"]["targets"] == 9
    assert result.budgets["fgsm"] | {"attack": "PGD", "threat": "Linf:0.1", "steps": 1} == result.budgets["fgsm"]
    names = ["clean", "fgsm", "autoattack-quick", "worst"]
    assert [list(d) for d in (result.accuracy, result.intervals, result.per_class)] == [names] * 3
    for name, (low, high) in result.intervals.items():
        assert low <= result.accuracy[name] <= high
        counts = [a * int((y == k).sum()) for k, a in enumerate(result.per_class[name]) if a is not None]
        assert sum(counts) == pytest.approx(40 * result.accuracy[name])
        assert result.fairness[name]["worst"] == min(a for a in result.per_class[name] if a is not None)
    sure = model(x).softmax(dim=1).amax(dim=1)
    # Everything is correct, so every gap is 1 - confidence.
    gap = pytest.approx(1 - sure.mean().item())
    assert result.calibration == {"ece": gap, "bins": 15, "attacked": result.calibration["attacked"]}
    assert list(result.calibration["attacked"]) == ["fgsm"]  # an ensemble ends in no one example an image
    assert (result.warnings, result.verdict) == ([], "")
    json.dumps(result.to_json())


def test_one_class_is_left_among_the_labels():
    model = network()
    x, y = correct_images(model)
    some = y == y.mode().values
    result = evaluate(model, x[some], y[some], threat=Linf(0.1), attacks=["autoattack-quick"])
    assert 0 < result.accuracy["worst"] < 1
    assert result.per_class["worst"].count(None) == 2


def test_of_several_calls_the_worst_case_is_that_in_the_ball_and_the_calibration_of_one_call():
    x, y = torch.full((40, 1, 8, 8), 0.9), torch.zeros(40, dtype=torch.int64)
    model = Threshold(pixels=64)
    y[:] = model(x).argmax(1)
    result = evaluate(model, x, y, threat=Linf(1 / 255), attacks=["fgsm", "patch-8"], calls=3)
    assert result.accuracy["patch-8"] < result.accuracy["worst"] == result.calls["accuracy"]["worst"] == 1.0

    class Guess(nn.Module):
        """Right in four calls of ten, always with confidence 0.6."""

        def forward(self, x):
            right = torch.rand(len(x)) < 0.4
            score = torch.log(torch.tensor([0.6, 0.4])) + 0 * x.flatten(1).sum(1, keepdim=True)
            return torch.where(right[:, None], score, score.flip(1))

    x, y = torch.rand(2000, 1, 2, 2), torch.zeros(2000, dtype=torch.int64)
    result = evaluate(Guess(), x, y, threat=Linf(0.1), attacks=["noise-1"], calls=20, wrong_calls=18)
    assert result.accuracy["clean"] > 0.9  # hardly an image is wrong in 18 calls of 20
    assert result.calibration["ece"] == pytest.approx(0.2, abs=0.04)
