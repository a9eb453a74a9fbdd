"""The loop: it resumes bit for bit whatever stops it, validates, selects, averages, and obeys its guards."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import uiat
from support import tiny
from support.paths import SRC
from support.tiny import Killed, Killer
from uiat import (
    ADR,
    DKL,
    HAT,
    LBGAT,
    UIAT,
    Guards,
    InstanceInverse,
    Interrupted,
    Model,
    NotFinite,
    SelfAdaptive,
    Standard,
    UniversalInverse,
)
from uiat.system.tensor_files import read_tensors
from uiat.training.open_run import start_run

EVERYTHING = UIAT(
    attack=tiny.attack(),
    inverse=UniversalInverse(start="uniform", gradient_momentum=0.5, radius=0.1, step_size=0.05),
    momentum="example",
)
RESUMED = {
    "uiat, momentum, ema, awp, crop": tiny.run(
        objective=EVERYTHING, average="ema", average_decay=0.5, awp=0.01, data={"augment": "crop"}, schedule="onecycle"
    ),
    "adamw": tiny.run(optimizer="adamw", learning_rate=0.01, objective=EVERYTHING),
    "detached, class momentum": tiny.run(
        objective=UIAT(attack=tiny.attack(), momentum="class", inverse_gradient=False), schedule="constant"
    ),
    "piecewise": tiny.run(epochs=3, schedule="piecewise", milestones=(1, 2)),
    "warm-up, cosine": tiny.run(schedule="cosine", warmup_epochs=0.7, clip_norm=0.5),
    "cyclic, crop-flip, swa": tiny.run(
        schedule="cyclic", data={"augment": "crop-flip"}, average="swa", average_from_epoch=1
    ),
    "instance-wise, ramp": tiny.run(
        objective=UIAT(attack=tiny.attack(), inverse=InstanceInverse(steps=2), ramp_epochs=2)
    ),
    "one-off": tiny.run(epochs=3, objective=UIAT(attack=tiny.attack(), inverse=UniversalInverse(epoch=1))),
    "single-step": tiny.run(objective=UIAT(attack=tiny.attack(1)), epochs=3),
    "adr, ema": tiny.run(objective=ADR(attack=tiny.attack(loss="kl"), decay=0.5, epochs=2), average="ema"),
    "lbgat, awp": tiny.run(objective=LBGAT(attack=tiny.attack(loss="kl"), weight=1.0), awp=0.01),
    "sat": tiny.run(objective=SelfAdaptive(attack=tiny.attack(loss="kl"), from_epoch=0)),
    "dkl": tiny.run(objective=DKL(attack=tiny.attack(loss="kl")), epochs=3),
    "hat": tiny.run(objective=HAT(attack=tiny.attack(loss="kl"))),
    "bf16, contiguous, no momentum": tiny.run(
        compute={"precision": "bf16", "channels_last": False}, momentum=0.0, objective=Standard()
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs, each trained once."""
    done = {}

    def trained(run, name):
        if name not in done:
            done[name] = tmp_path_factory.mktemp("whole") / "run"
            uiat.train(run, run_dir=done[name])
        return done[name]

    return trained


@pytest.mark.parametrize(("name", "at"), [*((name, 4) for name in RESUMED), ("uiat, momentum, ema, awp, crop", 2)])
def test_a_resumed_run_is_bit_identical(name, at, whole, tmp_path):
    run = RESUMED[name]
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "run", listener=Killer(at))
    torch.rand(7)  # whatever the caller did in between
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole(run, name), tmp_path / "run") == []


def test_a_model_with_dropout_resumes_and_so_does_its_average(tmp_path):
    (tmp_path / "net.py").write_text(tiny.DROPOUT_MODEL)
    run = tiny.run(model=Model(name=f"{tmp_path / 'net.py'}:net"), average="ema", average_decay=0.5, epochs=3)
    uiat.train(run, run_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "run", listener=Killer(5))
    uiat.resume(tmp_path / "run", own_code=True)
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_run_with_every_augmentation_resumes_bit_for_bit(tmp_path):
    heavy = {"augment": "resized-crop-flip", "randaugment": 2, "erasing": 0.5, "mixup": 0.8, "cutmix": 1.0}
    run = tiny.run(data=heavy)
    uiat.train(run, run_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "run", listener=Killer(5))
    uiat.resume(tmp_path / "run")
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_many_kills_of_one_run(whole, tmp_path):
    name = "uiat, momentum, ema, awp, crop"
    with pytest.raises(Killed):
        uiat.train(RESUMED[name], run_dir=tmp_path / "run", listener=Killer(1))
    for at in (1, 2, 2):  # the step that a kill interrupts is done again
        with pytest.raises(Killed):
            uiat.resume(tmp_path / "run", listener=Killer(at))
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole(RESUMED[name], name), tmp_path / "run") == []


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    run = tiny.run(compute={"checkpoint_steps": None}, epochs=1)
    uiat.train(run, run_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "run", listener=Killer(2))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    uiat.resume(tmp_path / "run")
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_finished_run_resumes_to_itself(whole):
    folder = whole(RESUMED["piecewise"], "piecewise")
    before = {file: file.read_bytes() for file in folder.glob("*.safetensors")}
    resumed = uiat.resume(folder)
    assert len(resumed.history) == 3
    assert {file: file.read_bytes() for file in folder.glob("*.safetensors")} == before


def test_recording_the_gradient_alignment_changes_no_weight(whole, tmp_path, monkeypatch):
    folder = whole(RESUMED["single-step"], "single-step")
    assert all(-1 <= row["alignment"] <= 1 for row in tiny.metrics(folder))
    monkeypatch.setattr("uiat.training.validation.is_single_step", lambda objective: False)
    uiat.train(RESUMED["single-step"], run_dir=tmp_path / "run")
    different = tiny.differences(folder, tmp_path / "run")
    assert all(name == "metrics.jsonl" or name.startswith("checkpoint") for name in different)


def test_how_often_a_checkpoint_is_written_changes_nothing(whole, tmp_path):
    name = "uiat, momentum, ema, awp, crop"
    run = RESUMED[name]
    uiat.train(replace(run, compute=replace(run.compute, checkpoint_steps=None)), run_dir=tmp_path / "run")
    assert tiny.differences(whole(run, name), tmp_path / "run") == []


# Files are written in this order, so that after one is before the next.
FILES = ["best", "last", "inverse", "metrics", "checkpoint"]


@pytest.mark.parametrize(("when", "file"), [*(("before", file) for file in FILES), ("after", "checkpoint")])
def test_a_kill_while_any_file_is_written_loses_nothing(file, when, whole, tmp_path, monkeypatch):
    name = "uiat, momentum, ema, awp, crop"
    replace_file, seen = os.replace, []

    def killed(source, target):
        if Path(target).name.startswith(file):
            seen.append(target)
            if len(seen) == 2:
                if when == "after":
                    replace_file(source, target)
                raise Killed
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with suppress(Killed):  # `best` may be written once only
        uiat.train(RESUMED[name], run_dir=tmp_path / "run")
    monkeypatch.undo()
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole(RESUMED[name], name), tmp_path / "run") == []


DRIVER = """
import sys, torch
torch.set_num_threads(1)
import uiat
from pathlib import Path
uiat.train(uiat.load_config(Path(sys.argv[2]).read_text()), run_dir=Path(sys.argv[1]))
"""


@pytest.mark.timeout(120)
def test_kill_minus_nine(whole, tmp_path):
    name = "uiat, momentum, ema, awp, crop"
    folder, config = tmp_path / "run", tmp_path / "run.yaml"
    config.write_text(uiat.dump(RESUMED[name]))
    command = [sys.executable, "-c", DRIVER, str(folder), str(config)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SRC)})
    while process.poll() is None:
        if (folder / "checkpoint.safetensors").exists():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() in (-signal.SIGKILL, 0)
    uiat.resume(folder)
    assert tiny.differences(whole(RESUMED[name], name), folder) == []


@pytest.mark.parametrize(("number", "at"), [(signal.SIGINT, 2), (signal.SIGTERM, 3)])
def test_a_signal_finishes_the_step_and_saves(number, at, whole, tmp_path):
    name = "piecewise"
    run = replace(RESUMED[name], compute=replace(RESUMED[name].compute, checkpoint_steps=None))
    killer = Killer(at, action=lambda: signal.raise_signal(number))
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=f"after step {at} of 3"):
        uiat.train(run, run_dir=tmp_path / "run", listener=killer)
    assert killer.steps == at
    assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole(RESUMED[name], name), tmp_path / "run") == []


def test_a_second_signal_stops_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        uiat.train(tiny.run(), run_dir=tmp_path / "run", listener=Killer(2, action=twice))
    assert not isinstance(caught.value, Interrupted)


def test_seeds(whole, tmp_path):
    name = "uiat, momentum, ema, awp, crop"
    run = RESUMED[name]
    torch.manual_seed(99)  # the caller's random state decides nothing, and is not touched
    before = torch.get_rng_state()
    uiat.train(run, run_dir=tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    uiat.train(replace(run, seed=2), run_dir=tmp_path / "other")
    assert tiny.differences(whole(run, name), tmp_path / "again") == []
    changed = tiny.differences(tmp_path / "again", tmp_path / "other")
    assert {"last.safetensors: body.stem.conv.weight", "inverse.safetensors: z", "metrics.jsonl"} <= set(changed) or (
        len(changed) > 20
    )


def test_what_an_epoch_says(whole):
    row = tiny.metrics(whole(RESUMED["piecewise"], "piecewise"))[1]
    assert row["epoch"] == 1
    assert row["learning_rate"] == pytest.approx(0.05 * 0.1)  # that of its last step, before the second milestone
    assert {"clean", "robust", "train_adv_ce", "train_inverse_kl", "train_correct", "alarms"} <= row.keys()
    assert 0 <= row["robust"] <= row["clean"] <= 1


# Validation, selection, averages


def scripted(monkeypatch, rows):
    """Validation that gives these measurements in turn."""
    rows = iter(rows)
    monkeypatch.setattr("uiat.training.loop.validate", lambda model, held_out, *, run: dict(next(rows)))


@pytest.mark.parametrize(("metric", "best"), [("clean", 2), ("robust", 0), ("mean", 1)])
def test_best_is_by_the_metric(metric, best, monkeypatch, tmp_path):
    rows = [{"clean": 0.3, "robust": 0.3}, {"clean": 0.5, "robust": 0.28}, {"clean": 0.6, "robust": 0.1}]
    scripted(monkeypatch, rows)
    trained = uiat.train(tiny.run(epochs=3, validation={"metric": metric}), run_dir=tmp_path / "run")
    assert trained.best["epoch"] == best
    tensors, meta = read_tensors(tmp_path / "run" / "best.safetensors")
    assert meta["epoch"] == best
    assert read_tensors(tmp_path / "run" / "last.safetensors")[1]["epoch"] == 2
    for key, value in trained.model.state_dict().items():
        assert torch.equal(value, tensors[key])


def test_patience(monkeypatch, caplog):
    scripted(monkeypatch, [{"clean": v, "robust": v} for v in (0.5, 0.6, 0.6, 0.4, 0.9)])
    validation = uiat.Validation(patience=2)
    trained = fit(epochs=5, validation=validation)
    assert [row["clean"] for row in trained.history] == [0.5, 0.6, 0.6, 0.4]
    assert trained.best == {"epoch": 1, "value": 0.6}
    assert "no better robust for 2 validations" in caplog.text


def fit(epochs=1, **settings):
    optimisation = settings.pop("optimisation", uiat.Optimisation(epochs=epochs, learning_rate=0.05))
    model = settings.pop("model", None) or tiny.linear()
    settings.setdefault("objective", UIAT(attack=tiny.attack()))
    return uiat.fit(model, tiny.tensors(), batch_size=16, optimisation=optimisation, **settings)


def test_validation_every_few_epochs_and_at_the_end():
    trained = fit(epochs=5, validation=uiat.Validation(every=2, steps=1))
    assert ["clean" in row for row in trained.history] == [False, True, False, True, True]
    assert trained.best["epoch"] in (1, 3, 4)


def test_validation_is_on_images_that_are_not_trained_on(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "uiat.training.loop.validate", lambda model, held_out, *, run: seen.append(held_out) or {"clean": 1}
    )
    x, y = tiny.tensors()
    uiat.fit(tiny.linear(), (x, y), objective=Standard(), batch_size=60, optimisation=uiat.Optimisation(epochs=1))
    assert len(seen[0]) == 4
    with pytest.raises(uiat.UserError, match="larger than the set of 60"):
        uiat.fit(tiny.linear(), (x, y), objective=Standard(), batch_size=61)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averaged_weights_are_validated_and_saved_with_fresh_statistics(kind, tmp_path, monkeypatch):
    judged = []
    monkeypatch.setattr(
        "uiat.training.loop.validate",
        lambda model, held_out, *, run: (
            judged.append({k: v.clone() for k, v in model.state_dict().items()})
            or {"clean": 0.5, "robust": len(judged) / 10}
        ),
    )
    run = tiny.run(average=kind, average_decay=0.9, epochs=2)
    uiat.train(run, run_dir=tmp_path / "run")
    saved = read_tensors(tmp_path / "run" / "last.safetensors")[0]
    state = read_tensors(tmp_path / "run" / "checkpoint.safetensors")[0]
    for key, value in saved.items():
        assert torch.equal(value, judged[-1][key]), key
        if "num_batches" not in key:
            assert torch.equal(value, state[f"average/module.{key}"]), key
    weight = next(key for key in saved if key.endswith("conv.weight"))
    assert not torch.equal(saved[weight], state[f"model/{weight}"])
    # The statistics are those of the averaged weights on training images, measured as torch's update_bn does.
    model = uiat.load(tmp_path / "run", "last")
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    with start_run(run, run_dir=tmp_path / "other") as training:
        torch.optim.swa_utils.update_bn((batch.x for batch in training.loader.epoch(1)), model)
    for key, value in model.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(value, before[key])


def test_an_average_that_starts_late_validates_the_weights_until_then(tmp_path):
    with pytest.raises(Killed):
        uiat.train(tiny.run(average="swa", average_from_epoch=1), run_dir=tmp_path / "run", listener=Killer(4))
    last = read_tensors(tmp_path / "run" / "last.safetensors")[0]
    state = read_tensors(tmp_path / "run" / "checkpoint.safetensors")[0]
    assert int(state["average/n_averaged"]) == 0
    assert last.keys() == {k.removeprefix("model/") for k in state if k.startswith("model/")}


# Guards


class Poisoned:
    """Standard training whose loss is NaN from a step on."""

    name, threat = "poisoned", None

    def __init__(self, at):
        self.at, self.inner, self.calls = at, Standard(), 0
        self.init, self.perturb = self.inner.init, self.inner.perturb

    def loss(self, model, examples):
        self.calls += 1
        terms = self.inner.loss(model, examples)
        return terms | {"rotten": terms["ce"] * (float("nan") if self.calls >= self.at else 0.0)}


def poison(monkeypatch, at):
    poisoned = Poisoned(at)
    monkeypatch.setattr(UIAT, "loss", lambda self, model, examples: poisoned.loss(model, examples))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    poison(monkeypatch, 5)
    with pytest.raises(NotFinite, match=r"loss term rotten is not finite \(nan\) in epoch 2, by step 2.*checkpoint"):
        uiat.train(tiny.run(epochs=3), run_dir=tmp_path / "run")
    tensors, meta = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    assert (meta["meta"]["epoch"], meta["meta"]["position"]) == (1, 1)
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    monkeypatch.undo()
    poison(monkeypatch, 1_000)
    uiat.train(tiny.run(epochs=3), run_dir=tmp_path / "whole")
    uiat.resume(tmp_path / "run")  # nothing bad was kept
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_an_update_that_overflows_stops_the_run_before_it_is_saved(tmp_path):
    with pytest.raises(NotFinite, match="not finite"):
        uiat.train(tiny.run(learning_rate=1e30, schedule="constant"), run_dir=tmp_path / "run")
    for file in (tmp_path / "run").glob("*.safetensors"):
        assert all(t.isfinite().all() for t in read_tensors(file)[0].values() if t.is_floating_point()), file


def test_without_a_folder_a_failed_run_leaves_the_best_weights_in_the_model(unchecked):
    model = tiny.linear()
    kept = []

    class Keep(Killer):
        def epoch(self, row):
            kept.append({k: v.clone() for k, v in model.state_dict().items()})

    with pytest.raises(NotFinite, match="the model holds its best weights"):
        fit(epochs=2, model=model, objective=Poisoned(5), listener=Keep(0))
    assert len(kept) == 1
    for key, value in model.state_dict().items():
        assert torch.equal(value, kept[0][key])


COLLAPSE = [
    {"clean": 0.9, "robust": 0.6, "train_correct": 0.5},
    {"clean": 0.95, "robust": 0.0, "train_correct": 0.9},
    {"clean": 0.9, "robust": 0.65, "train_correct": 0.55},
]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("action", ["warn", "stop", "rollback"])
def test_catastrophic_overfitting(action, folder, monkeypatch, caplog, tmp_path):
    scripted(monkeypatch, COLLAPSE)
    seen = []
    model = tiny.linear()

    class Look(Killer):
        def epoch(self, row):
            seen.append(model[1].weight.detach().clone())

    trained = fit(
        epochs=3,
        model=model,
        guards=Guards(overfitting=action),
        validation=uiat.Validation(metric="clean"),
        run_dir=tmp_path / "run" if folder else None,
        listener=Look(0),
    )
    assert "catastrophic overfitting in epoch 2" in caplog.text
    assert "catastrophic overfitting" in trained.history[1]["alarms"][0]
    assert len(trained.history) == (2 if action == "stop" else 3)
    assert torch.equal(seen[0], seen[1]) == (action == "rollback")
    assert trained.best["epoch"] == (0 if action == "rollback" else 1)


def test_a_rolled_back_run_resumes_bit_for_bit(monkeypatch, tmp_path):
    run = tiny.run(epochs=3, guards=Guards(overfitting="rollback"), average="ema", average_decay=0.5)
    scripted(monkeypatch, COLLAPSE)
    uiat.train(run, run_dir=tmp_path / "whole")
    scripted(monkeypatch, COLLAPSE)
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "run", listener=Killer(7))
    scripted(monkeypatch, COLLAPSE[2:])
    uiat.resume(tmp_path / "run")
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []
    assert read_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["meta"]["rollbacks"] == 1


def test_rolling_back_again_and_again_ends_the_run(monkeypatch):
    scripted(monkeypatch, [COLLAPSE[0], *[{**COLLAPSE[1], "train_correct": 0.9}] * 9])
    trained = fit(epochs=8, guards=Guards(overfitting="rollback"))
    assert len(trained.history) == 5  # the fourth collapse, after three times back


def test_still_at_chance(caplog):
    trained = fit(
        epochs=4,
        optimisation=uiat.Optimisation(epochs=4, learning_rate=0.0),
        model=nn.Sequential(nn.Flatten(), Constant()),
        guards=Guards(chance_epochs=3),
        validation=uiat.Validation(every=2, steps=1),
    )
    assert [len(row["alarms"]) for row in trained.history] == [0, 0, 0, 1]
    assert caplog.text.count("still at chance") == 1


class Constant(nn.Module):
    """The same answer to everything."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([2.0, 0.0, 0.0, 0.0]))

    def forward(self, x):
        return self.bias + 0 * x.sum(dim=1, keepdim=True)
