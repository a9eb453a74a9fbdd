"""The examples with Lightning and Accelerate train as `make_step` does, to the last digit."""

import copy
import importlib.util

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import uiat
from support import tiny
from support.paths import ROOT

SHAPES = {"num_classes": 4, "image_shape": (1, 8, 8)}


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parts():
    """A model, an objective, a loader in a fixed order, and the weights after two epochs of `make_step`."""
    torch.manual_seed(0)
    x, y = tiny.tensors()
    model, attack = tiny.linear(), uiat.PGD(threat=uiat.Linf(0.1), step_size=0.1, steps=1, start="none")
    objective = uiat.UIAT(attack=attack, inverse=uiat.UniversalInverse(radius=0.05, step_size=0.02))
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    trained = copy.deepcopy(model)
    step = uiat.make_step(trained, objective, sgd(trained), **SHAPES)
    for epoch in range(2):
        for batch in loader:
            step(uiat.Batch(*batch), epoch=epoch)
    return model, objective, loader, trained.state_dict()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning:lightning")
def test_the_lightning_module_trains_as_the_step_does(parts, tmp_path):
    lightning = pytest.importorskip("lightning")
    model, objective, loader, trained = parts
    example = load_example("lightning_module")
    module = example.RobustModule(model, objective, **SHAPES)
    callback = example.RobustAccuracy(*loader.dataset.tensors, objective.attack)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[callback], enable_model_summary=False, **quiet
    )
    trainer.fit(module, loader)
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    assert 0 <= trainer.callback_metrics["robust"] <= 1
    assert "train/inverse_kl" in trainer.callback_metrics
    assert any("state" in name for name in module.state_dict())  # the perturbations are in a checkpoint


def test_the_accelerate_loop_trains_as_the_step_does(parts):
    accelerate = pytest.importorskip("accelerate")
    model, objective, loader, trained = parts
    example = load_example("accelerate_loop")
    accelerator = accelerate.Accelerator(cpu=True)
    means = example.train(accelerator, model, objective, sgd(model), loader, **SHAPES, epochs=2)
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    assert set(means) == {"adv_ce", "inverse_kl", "correct"}
