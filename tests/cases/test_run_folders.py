"""Run folders that are incomplete, lost in part, mixed up or damaged: cases from the field, and more of their kinds."""

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import uiat
from support import tiny
from support.paths import ROOT
from support.run_folders import as_version_1
from support.tiny import Killed, Killer
from uiat import UserError, analyse
from uiat.experiments import EvaluateOptions, evaluate, sweep
from uiat.experiments.target import load_target
from uiat.report import write_report
from uiat.runs.evaluations import read_evaluation
from uiat.system import manifest
from uiat.system.tensor_files import read_tensors, write_tensors

RUN = uiat.override(tiny.run(), [("evaluation.attacks", "[clean, fgsm]"), ("evaluation.n", "16")])


def judged(folder, **options):
    """Evaluate a run of its folder, as the command does."""
    chosen = EvaluateOptions(run=folder, **options)
    return evaluate.run(chosen, load_target(chosen))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that has ended and was evaluated, one of another seed, one of a weaker threat, and one killed half-way."""
    where = tmp_path_factory.mktemp("runs")
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        weaker = [("objective.attack.threat.epsilon", "0.1")]
        for name, changes in {"ended": [], "other": [("seed", "2")], "weaker": weaker}.items():
            uiat.train(uiat.override(RUN, changes), run_dir=where / name)
            judged(where / name, n=None if name == "ended" else 4)
        with pytest.raises(Killed):
            uiat.train(RUN, run_dir=where / "half", listener=Killer(5))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return where


@pytest.fixture(params=["0.1", "0.2"])
def version(request):
    """A change of a folder into one of each version."""
    return (lambda folder: folder) if request.param == "0.2" else as_version_1


@pytest.fixture
def copy(runs, tmp_path, unchecked):
    """A copy of one of the runs, in the place of the run "run"."""
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


def sums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


COMMANDS = {
    "evaluate": judged,
    "report": lambda folder: write_report([folder], folder.parent / "report.html"),
    "analyse": lambda folder: analyse.run("strength", [folder], n=8, attack="pgd-1"),
    "resume": uiat.resume,
    "load": uiat.load,
}


# Missing means default.


def section(name):
    """The settings without one of their sections."""

    def without(text):
        lines, inside, kept = text.splitlines(keepends=True), False, []
        for line in lines:
            inside = line.startswith(f"{name}:") or (inside and line.startswith((" ", "-")))
            kept += [] if inside else [line]
        return "".join(kept)

    return without


INCOMPLETE = {
    "empty": lambda text: "",
    "cut off in the middle": lambda text: text[: len(text) // 2],
    "cut off in the last number": lambda text: text[:-2],
    "cut off after a line": lambda text: "".join(text.splitlines(keepends=True)[:-9]),
    "an empty mapping": lambda text: "{}\n",
    "a comment": lambda text: "# to be filled in\n",
    "null": lambda text: "null\n",
    "no objective": section("objective"),
    "no data": section("data"),
    "no evaluation": section("evaluation"),
    "one field gone": lambda text: "".join(x for x in text.splitlines(keepends=True) if "epsilon" not in x),
}


@pytest.mark.parametrize("damage", INCOMPLETE)
def test_incomplete_settings_are_refused_by_every_command(damage, copy, version):
    folder = version(copy("ended"))
    path = folder / "config.yaml"
    path.write_text(INCOMPLETE[damage](path.read_text()))
    before = sums(folder)
    for command in COMMANDS.values():
        with pytest.raises(UserError, match=r"config\.yaml"):
            command(folder)
    assert sums(folder) == before


# An absent state is never a fresh start.


def lost(folder, *names):
    for name in names:
        (folder / name).unlink()
    return folder


def test_a_run_that_has_ended_needs_no_checkpoint(copy, version, runs):
    folder = lost(version(copy("ended")), "checkpoint.safetensors")
    before, whole = sums(folder), uiat.resume(runs / "ended")
    trained = uiat.resume(folder)
    assert sums(folder) == before
    assert (trained.history, trained.best) == (whole.history, whole.best)
    assert torch.equal(trained.inverse.z, whole.inverse.z)
    for a, b in zip(trained.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert tiny.same(a, b)


@pytest.mark.parametrize(
    ("name", "gone", "says"),
    [
        ("half", ("checkpoint.safetensors",), "checkpoint.safetensors is missing"),
        ("half", ("checkpoint.safetensors", "metrics.jsonl"), "is missing"),
        ("half", ("checkpoint.safetensors", "metrics.jsonl", "last.safetensors"), "is missing"),
        ("ended", ("checkpoint.safetensors", "best.safetensors"), "best.safetensors"),
        ("ended", ("best.safetensors",), "best.safetensors"),
    ],
)
def test_what_is_lost_is_not_begun_anew(name, gone, says, copy, version):
    folder = lost(version(copy(name)), *gone)
    before = sums(folder)
    with pytest.raises(UserError, match=says):
        uiat.resume(folder)
    assert sums(folder) == before


def test_a_run_killed_before_its_first_checkpoint_is_begun_again_to_the_same_end(runs, tmp_path, unchecked):
    slow = uiat.override(RUN, [("compute.checkpoint_steps", "null")])
    with pytest.raises(Killed):
        uiat.train(slow, run_dir=tmp_path / "run", listener=Killer(2))
    uiat.resume(tmp_path / "run")
    assert [name for name in tiny.differences(runs / "ended", tmp_path / "run") if "checkpoint" not in name] == []


@pytest.mark.parametrize("name", ["best", "last", "inverse", "checkpoint"])
def test_a_kill_between_two_renames_is_resumed_to_the_same_end(name, runs, tmp_path, monkeypatch, unchecked):
    """Each file in turn is the last that was written; the manifest lists what it was to become."""
    real = manifest.write_bytes

    def killed(path, content):
        real(path, content)
        if path.name == f"{name}.safetensors" and (name == "best" or (path.parent / "metrics.jsonl").exists()):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_bytes", killed)
        with pytest.raises(Killed):
            uiat.train(RUN, run_dir=tmp_path / "run")
    uiat.resume(tmp_path / "run")
    assert tiny.differences(runs / "ended", tmp_path / "run") == []


def test_a_sweep_keeps_a_run_that_lost_its_checkpoint(tmp_path, unchecked):
    (run,) = sweep(RUN, folder=tmp_path)
    lost(run.folder, "checkpoint.safetensors")
    before = sums(run.folder)
    (again,) = sweep(RUN, folder=tmp_path)
    assert (again.status, again.accuracy) == ("done", run.accuracy)
    assert sums(run.folder) == before


# Results bound to nothing.


@pytest.mark.parametrize("name", ["best.safetensors", "checkpoint.safetensors", "inverse.safetensors", "metrics.jsonl"])
def test_a_file_of_another_run_is_refused(name, copy, runs):
    folder = copy("ended")
    shutil.copy(runs / "other" / name, folder / name)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        uiat.resume(folder)


def test_weights_of_another_threat_model_are_refused_in_a_folder_of_version_1(copy, runs):
    folder = as_version_1(copy("ended"))
    shutil.copy(runs / "weaker" / "best.safetensors", folder / "best.safetensors")
    for command in (judged, COMMANDS["analyse"], uiat.load):
        with pytest.raises(
            UserError, match=r"best\.safetensors and .*config\.yaml are of different runs: threat model"
        ):
            command(folder)


def test_an_evaluation_of_another_run_is_stale_and_the_sweep_makes_it_again(tmp_path, runs, unchecked):
    (run,) = sweep(RUN, folder=tmp_path)
    shutil.copy(runs / "weaker" / "evaluation.json", run.folder / "evaluation.json")
    assert read_evaluation(run.folder) is None
    (_, text) = write_report([run.folder], tmp_path / "report.html")
    assert "stale: evaluation.json is of other weights than best.safetensors" in text.read_text()
    (again,) = sweep(RUN, folder=tmp_path)
    assert again.accuracy == run.accuracy
    assert read_evaluation(run.folder)["accuracy"] == run.accuracy


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_every_study(value, copy, version):
    folder = version(copy("ended"))
    if (folder / "manifest.json").exists():
        (folder / "manifest.json").unlink()
    tensors, meta = read_tensors(folder / "best.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim > 1)
    tensors[name].view(-1)[0] = value
    write_tensors(folder / "best.safetensors", tensors, meta)
    for study in analyse.STUDIES:
        if study not in ("one-off", "tradeoff"):  # which need a run of another kind, and several runs
            reads = analyse.STUDIES[study].reads
            options = {name: value for name, value in (("n", 8), ("attack", "pgd-1")) if name in reads}
            with pytest.raises(
                UserError,
                match=rf"best\.safetensors is damaged: {name} holds values that|stale: .* than best\.safe",
            ):
                analyse.run(study, [folder], **options)


@pytest.mark.parametrize("which", ["accuracy", "per_class", "broken_by"])
def test_an_edited_evaluation_is_refused(which, copy, version):
    folder = version(copy("ended"))
    path = folder / "evaluation.json"
    record = json.loads(path.read_text())
    changed = {"accuracy": {**record["accuracy"], "worst": 1.0}, "broken_by": [""] * 15 + ["fgsm"]}
    changed["per_class"] = {name: [1.0] * 10 for name in record["accuracy"]}
    path.write_text(json.dumps(record | {which: changed[which]}))
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        write_report([folder], folder.parent / "report.html")


# A quick look is not the result; what was passed to fit is evaluated too.


def test_the_strongest_evaluation_on_most_images_counts_in_report_and_study(copy):
    folder = copy("ended")
    whole = read_evaluation(folder)["accuracy"]["worst"]
    judged(folder, attacks="clean", n=4)
    assert read_evaluation(folder)["accuracy"]["worst"] == whole
    (_, text) = write_report([folder], folder.parent / "report.html")
    assert "the result is that of evaluation-1.json" in text.read_text()
    judged(folder, attacks="pgd-3", n=16)
    joined = read_evaluation(folder)
    assert set(joined["accuracy"]) == {"clean", "fgsm", "pgd-3", "worst"}
    assert joined["accuracy"]["worst"] <= whole
    assert joined["accuracy"]["worst"] == joined["broken_by"].count("") / 16


def test_a_run_of_fit_is_evaluated_with_its_model_named(tmp_path, monkeypatch, unchecked):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(tiny.DROPOUT_MODEL)
    x, y = uiat.data.tensors("digits", "train")
    spec = {"num_classes": 10, "image_shape": (1, 8, 8)}
    options = {"objective": uiat.PGDAT(attack=tiny.attack()), "optimisation": uiat.Optimisation(epochs=1)}
    net = uiat.models.build("mine.py:net", **spec)
    trained = uiat.fit(net, (x[:128], y[:128]), batch_size=20, run_dir="run", **options)
    with pytest.raises(UserError, match=r"was passed to fit.*--model file\.py:function"):
        judged(Path("run"))
    with pytest.raises(UserError, match="name test images, --data NAME"):
        judged(Path("run"), model="mine.py:net")
    result = judged(Path("run"), model="mine.py:net", data="digits", attacks="fgsm", n=16)
    images, labels = (part[:16] for part in uiat.data.tensors("digits", "test"))
    here = uiat.evaluate(trained.model, images, labels, threat=uiat.Linf(0.2), attacks=["clean", "fgsm"])
    assert result.broken_by == here.broken_by
    here.save("run")
    assert {path.name for path in Path("run").glob("evaluation*")} == {"evaluation.json", "evaluation-1.json"}
    (_, text) = write_report(["run"], "new/report.html")
    assert "stale" not in text.read_text()
    Path("mine.py").write_text(tiny.DROPOUT_MODEL + "\n# changed\n")
    assert "evaluation-1.json is of another mine.py than there is now" in write_report(["run"])[1].read_text()


# Damaged files: a part of what benchmarks/fault_injection.py does, which does all of it.


def test_each_damage_is_refused_by_name_or_without_effect(tmp_path, unchecked):
    spec = importlib.util.spec_from_file_location("fault_injection", ROOT / "benchmarks" / "fault_injection.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    counts = module.run_trials(tmp_path, places=2, stride=40, seed=0, only=("ended", "sweep"))
    assert counts["all", "identical"] > 5
    assert counts["all", "refused"] > 5
    assert counts["all", "wrong"] == counts["all", "traceback"] == 0
