"""`train`, `fit` and `resume`: what they give, what they write, what they refuse."""

import copy
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import uiat
from support import tiny
from support.tiny import Killed, Killer
from uiat import ARD, PGDAT, UIAT, Compute, Model, Optimisation, Standard, UniversalInverse, UserError
from uiat.training.api import reopen_run, start_run
from uiat.training.device import can_use_channels_last
from uiat.training.step import Step


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    return uiat.train(tiny.run(), run_dir=folder)


def fit(model=None, data=None, **settings):
    settings = {"objective": PGDAT(attack=tiny.attack()), "batch_size": 16, **settings}
    settings.setdefault("optimisation", Optimisation(epochs=1, learning_rate=0.05))
    return uiat.fit(model or tiny.linear(), data or tiny.tensors(), **settings)


def test_what_is_in_the_folder(trained):
    names = {file.name for file in trained.folder.iterdir()}
    assert names == {
        *("config.yaml", "environment.json", "metrics.jsonl", "inverse.safetensors", "manifest.json"),
        *("best.safetensors", "last.safetensors", "checkpoint.safetensors"),
    }
    assert json.loads((trained.folder / "environment.json").read_text())["torch"] == torch.__version__
    assert tiny.metrics(trained.folder) == tiny.untimed(trained.history)


def test_what_training_gives(trained):
    assert not trained.model.training
    assert trained.model.threat == uiat.Linf(0.2)
    assert len(trained.history) == 2
    assert trained.best["value"] == max(row["robust"] for row in trained.history)
    assert trained.inverse.z.shape == (10, 1, 8, 8)
    assert trained.inverse.z.abs().max() > 0


def test_the_folder_gives_back_what_training_gave(trained):
    model, inverse = uiat.load(trained.folder), uiat.load_inverse(trained.folder)
    x = torch.rand(5, 1, 8, 8)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    # The one is in another memory format, for which there are other kernels.
    torch.testing.assert_close(model(x), trained.model(x))
    assert model.threat == trained.model.threat
    assert torch.equal(inverse.z, trained.inverse.z)
    assert inverse.threat == trained.inverse.threat


def test_a_universal_perturbation_warm_starts_another_run(trained, tmp_path):
    inverse = UniversalInverse(warm_start=str(trained.folder), radius=0.05)
    run = tiny.run(objective=UIAT(attack=tiny.attack(), inverse=inverse))
    with start_run(run, run_dir=tmp_path / "run") as training:
        assert torch.equal(training.step.state.z, trained.inverse.z.clamp(-0.05, 0.05))


def test_a_run_folder_is_never_overwritten(trained, tmp_path):
    before = {file: file.read_bytes() for file in trained.folder.iterdir()}
    with pytest.raises(UserError, match="exists and is never overwritten"):
        uiat.train(tiny.run(), run_dir=trained.folder)
    with pytest.raises(UserError, match="exists and is never overwritten"):
        fit(run_dir=trained.folder)
    assert {file: file.read_bytes() for file in trained.folder.iterdir()} == before


def test_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = replace(tiny.run(epochs=1, objective=Standard()), name="mine")
    folders = [uiat.train(run).folder for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/mine", "runs/mine-2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"batch_size": 97}}, "batch size 97 is larger than the set of 96"),
        ({"data": {"name": "digit"}}, "did you mean 'digits'"),
        ({"model": Model(name="small-cn")}, "did you mean 'small-cnn'"),
        ({"data": {"validation": 5}}, "cannot take 5 of"),
        ({"schedule": "onecycle", "warmup_epochs": 0.5}, "warms up by itself"),
        ({"schedule": "cosine", "warmup_epochs": 9.0}, "at least one step"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"compute": {"device": "cuda:99"}}, "device 'cuda:99' cannot be used here"),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_folder_behind(change, message, tmp_path, unchecked):
    with pytest.raises(UserError, match=message):
        uiat.train(tiny.run(**change), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Models and data of one's own


def test_fit_learns_from_a_dataset_as_people_write_them():
    settings = {"optimisation": Optimisation(epochs=8, learning_rate=0.3), "validation_data": tiny.tensors()}
    trained = fit(data=tiny.Pairs(), **settings)
    assert trained.history[-1]["clean"] > 0.9
    assert trained.folder is None
    assert trained.model.threat == uiat.Linf(0.2)


def test_fit_trains_the_model_in_place_and_leaves_it_at_its_best():
    model = tiny.linear()
    before = model[1].weight.detach().clone()
    trained = fit(model)
    assert trained.model is model
    assert not torch.equal(model[1].weight, before)
    assert not model.training


def test_two_fits_are_identical_and_leave_the_callers_random_state_alone():
    state = torch.get_rng_state()
    results = []
    for i, seed in enumerate((3, 3, 4)):
        model = tiny.linear()
        for p in model.parameters():
            nn.init.zeros_(p)
        torch.set_rng_state(state)
        torch.rand(i)  # the caller's random state decides nothing
        before = torch.get_rng_state()
        fit(model, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(model[1].weight.detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


class Views(nn.Module):
    """A model of the textbook kind, with .view() before its linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3 * 36, 4)

    def forward(self, x):
        features = self.conv(x)
        return self.head(features.view(features.size(0), -1))


def test_a_model_that_calls_view_is_trained_and_channels_last_says_what_is_wrong():
    assert fit(Views()).history
    with pytest.raises(UserError, match=r"set compute.channels_last to false"):
        fit(Views(), compute=Compute(channels_last=True))


class Mine:
    """An objective of one's own, without a `correct` measurement."""

    name, threat = "mine", None

    def init(self, *, num_classes, image_shape, num_examples=None):
        return nn.Module()

    def perturb(self, model, batch, state, *, epoch):
        return uiat.Examples(batch.x, batch.y)

    def loss(self, model, examples):
        return {"ce": nn.functional.cross_entropy(model(examples.x), examples.y, reduction="none")}


def test_an_objective_of_ones_own(unchecked, tmp_path):
    trained = fit(objective=Mine(), optimisation=Optimisation(epochs=2))
    assert trained.history[0]["train_ce"] > 0
    assert "robust" not in trained.history[0]
    with pytest.raises(UserError, match="frozen dataclass"):
        fit(objective=Mine(), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_whose_backward_pass_would_crash_channels_last_is_trained_as_it_lies(tmp_path, caplog):
    model = Model(name="preact-resnet8", width=4)  # its shortcuts are 1x1 convolutions of stride 2 and 4 channels
    trained = uiat.train(tiny.run(epochs=1, model=model), run_dir=tmp_path / "run")
    assert trained.history
    assert "compute.channels_last is off for this model" in caplog.text
    assert not trained.model.body.stage1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    caplog.clear()
    wide = uiat.models.build("preact-resnet8", num_classes=4, image_shape=(1, 8, 8), width=8)
    assert can_use_channels_last(wide, requested=True)
    assert not can_use_channels_last(wide, requested=False)
    assert not caplog.text


@dataclass(frozen=True)
class Noisy:
    """An objective of one's own that a run folder can hold: random numbers in each step, and a state."""

    name: str = "noisy"
    scale: float = 0.1
    threat: uiat.Linf = uiat.Linf(0.2)

    def init(self, *, num_classes, image_shape, num_examples=None):
        state = nn.Module()
        state.register_buffer("steps", torch.zeros(()))
        return state

    def perturb(self, model, batch, state, *, epoch):
        state.steps += 1
        return uiat.Examples(batch.x, batch.y, batch.x + self.scale / state.steps * torch.rand_like(batch.x))

    def loss(self, model, examples):
        return {"ce": nn.functional.cross_entropy(model(examples.x_adv), examples.y, reduction="none")}


def test_a_run_with_an_objective_of_ones_own_goes_on_with_it(unchecked, tmp_path):
    settings = {"optimisation": Optimisation(epochs=2), "compute": Compute(checkpoint_steps=1), "objective": Noisy()}
    start = tiny.linear()
    fit(copy.deepcopy(start), run_dir=tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        fit(copy.deepcopy(start), run_dir=tmp_path / "run", listener=Killer(3), **settings)
    own = {"model": tiny.linear(), "train_data": tiny.tensors()}
    with pytest.raises(UserError, match=r"an objective of one's own, 'noisy', .* objective=...\)"):
        uiat.resume(tmp_path / "run", **own)
    with pytest.raises(UserError, match=r"objective\.scale was 0.1 and is 0.2"):
        uiat.resume(tmp_path / "run", objective=Noisy(scale=0.2), **own)
    uiat.resume(tmp_path / "run", objective=Noisy(), **own)
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_an_objective_that_lacks_something(unchecked):
    class Half:
        name = "half"

    with pytest.raises(UserError, match="no init or perturb or loss"):
        fit(objective=Half())


def test_validation_data_of_ones_own():
    x, y = tiny.tensors()
    seen = []
    listener = Killer(0)
    listener.epoch = seen.append
    fit(validation_data=(x[:8], y[:8]), listener=listener)
    assert (seen[0]["clean"] * 8).is_integer()
    with pytest.raises(UserError, match="classes of images"):
        fit(validation_data=(torch.rand(8, 1, 9, 9), y[:8]))
    with pytest.raises(UserError, match="labels run from 0 to 9"):
        fit(validation_data=(torch.rand(10, 1, 8, 8), torch.arange(10)))


def test_a_run_of_fit_resumes_with_its_model_and_data(tmp_path):
    settings = {
        "objective": UIAT(attack=tiny.attack(), momentum="example"),
        "optimisation": Optimisation(epochs=2, average="ema", average_decay=0.5),
        "compute": Compute(checkpoint_steps=1),
    }
    start = {k: v.clone() for k, v in tiny.linear().state_dict().items()}

    def model():
        fresh = tiny.linear()
        fresh.load_state_dict(start)
        return fresh

    fit(model(), run_dir=tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        fit(model(), run_dir=tmp_path / "run", listener=Killer(5), **settings)
    with pytest.raises(
        UserError, match=r"made by fit\(\): go on with uiat.resume\(folder, model=..., train_data=...\)"
    ):
        uiat.resume(tmp_path / "run")
    x, y = tiny.tensors()
    with pytest.raises(UserError, match="the training set is not the one"):
        uiat.resume(tmp_path / "run", model=tiny.linear(), train_data=(x.flip(0), y))
    with pytest.raises(UserError, match="do not fit the model"):
        uiat.resume(tmp_path / "run", model=nn.Sequential(tiny.linear()), train_data=(x, y))
    uiat.resume(tmp_path / "run", model=tiny.linear(), train_data=(x, y))
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []
    with pytest.raises(UserError, match="pass model="):
        uiat.load(tmp_path / "run")
    loaded = uiat.load(tmp_path / "run", model=tiny.linear())
    assert loaded.threat == uiat.Linf(0.2)


def killed(made, at):
    made.append(1)
    if len(made) == at:
        raise Killed


@pytest.mark.parametrize("at", [2, 6])  # of the steps: 4 of the teacher come first
def test_a_run_of_fit_killed_in_its_first_steps_goes_on_from_the_model_it_had(at, tmp_path, monkeypatch):
    start = copy.deepcopy(tiny.linear())
    settings = {"objective": ARD(attack=tiny.attack()), "optimisation": Optimisation(epochs=1)}
    fit(copy.deepcopy(start), run_dir=tmp_path / "whole", **settings)
    made, call = [], Step.__call__
    monkeypatch.setattr(Step, "__call__", lambda *args, **more: killed(made, at) or call(*args, **more))
    with pytest.raises(Killed):
        fit(copy.deepcopy(start), run_dir=tmp_path / "run", **settings)
    other = tiny.linear()
    other.load_state_dict({name: value + 1 for name, value in start.state_dict().items()})
    uiat.resume(tmp_path / "run", model=other, train_data=tiny.tensors())
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_run_that_started_from_perturbations_resumes_without_their_file(tmp_path):
    source = uiat.train(tiny.run(epochs=1, objective=UIAT(attack=tiny.attack())), run_dir=tmp_path / "source")
    inverse = replace(UIAT().inverse, radius=0.1, step_size=0.025, warm_start=str(source.folder))
    run = tiny.run(epochs=1, objective=UIAT(attack=tiny.attack(), inverse=inverse))
    uiat.train(run, run_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "run", listener=Killer(1))
    source.folder.rename(tmp_path / "elsewhere")
    uiat.resume(tmp_path / "run")
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_named_run_takes_no_model(trained):
    with pytest.raises(UserError, match="names its own model and data"):
        uiat.resume(trained.folder, model=tiny.linear(), train_data=tiny.tensors())


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "..", ""])
def test_a_name_that_would_put_the_folder_elsewhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = replace(tiny.run(epochs=1, objective=Standard()), name=name)
    with pytest.raises(UserError, match="cannot name its folder"):
        uiat.train(run)
    assert list(tmp_path.iterdir()) == []
    assert uiat.train(run, run_dir="mine").folder == Path("mine")


def test_a_folder_is_trained_in_by_one_at_a_time(trained, tmp_path):
    run = tiny.run(epochs=1)
    with start_run(run, run_dir=tmp_path / "run") as training:
        training.save()
        with pytest.raises(UserError, match="is being trained in already"):
            uiat.resume(tmp_path / "run")
        training.fit()
    uiat.resume(tmp_path / "run")  # the lock has gone, and left no file
    assert {file.name for file in (tmp_path / "run").iterdir()} == {file.name for file in trained.folder.iterdir()}
    with reopen_run(tmp_path / "run"), pytest.raises(UserError, match="is being trained in already"):
        uiat.resume(tmp_path / "run")
    keep = Killer(1, action=lambda: uiat.resume(tmp_path / "fit", model=tiny.linear(), train_data=tiny.tensors()))
    with pytest.raises(UserError, match="is being trained in already"):
        fit(run_dir=tmp_path / "fit", listener=keep)


# Started and reopened


def test_a_started_run_stands_before_its_first_step(tmp_path):
    with start_run(tiny.run(), run_dir=tmp_path / "run") as training:
        assert (training.epoch, training.position, training.history) == (0, 0, [])
        assert (tmp_path / "run" / "config.yaml").exists()
        assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_reopened_run_is_where_it_was(tmp_path):
    with pytest.raises(Killed):
        uiat.train(tiny.run(), run_dir=tmp_path / "run", listener=Killer(5))
    (tmp_path / "run" / ".checkpoint.safetensors.7.partial").write_text("what a kill left")
    with reopen_run(tmp_path / "run") as training:
        assert (training.epoch, training.position) == (1, 1)
        assert len(training.history) == 1
    assert not list((tmp_path / "run").glob(".*"))


def test_a_model_of_ones_own_is_code_and_runs_on_request_only(tmp_path):
    (tmp_path / "net.py").write_text(tiny.DROPOUT_MODEL)
    run = tiny.run(model=Model(name=f"{tmp_path / 'net.py'}:net"), epochs=1)
    uiat.train(run, run_dir=tmp_path / "run")
    (tmp_path / "net.py").write_text("raise SystemExit('ran')")
    for act in (uiat.load, uiat.resume):
        with pytest.raises(UserError, match="allow it with own_code=True"):
            act(tmp_path / "run")
    (tmp_path / "net.py").write_text(tiny.DROPOUT_MODEL)
    assert uiat.load(tmp_path / "run", own_code=True)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_warnings_come_through_logging(caplog):
    with caplog.at_level(logging.WARNING, "uiat"):
        fit(optimisation=Optimisation(epochs=2, learning_rate=0.0), validation=uiat.Validation(patience=1))
    assert "no better robust for 1 validations: stopped" in caplog.text


def test_plain_turns_every_setting_of_speed_off(tmp_path):
    run = tiny.run(compute={"plain": True, "precision": "bf16", "compile": True})
    with start_run(run, run_dir=tmp_path / "run") as training:
        assert training.step.inner_model() is training.model
        assert not training.step.options.try_kernels
        assert training.optimizer.defaults["fused"] is None
        weight = training.model.body.stage2.conv.weight
        assert weight.is_contiguous()
        assert not weight.is_contiguous(memory_format=torch.channels_last)
        with training.step.autocast():
            assert not torch.is_autocast_enabled("cpu")
    with start_run(tiny.run(), run_dir=tmp_path / "fast") as training:
        assert training.optimizer.defaults["fused"] is True
