"""What only a GPU can show: recorded steps are the steps, verdicts are in full precision."""

import copy

import pytest
import torch
from torch import nn

import uiat
from support.objectives import OBJECTIVES
from uiat import models, recipes
from uiat.data import Batch
from uiat.objectives.networks import teacher_method
from uiat.speed import cuda_graphs
from uiat.system.tensor_files import read_tensors
from uiat.training.open_run import reopen_run
from uiat.training.step import make_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
METHODS = (
    *("standard", "pgd-at", "trades", "mart", "iat", "uiat", "uiat-one-off", "uiat-paper", "hat", "score", "dkl"),
    *("lbgat", "fat", "sat", "mlcat", "squeeze", "dhat", "ard", "rslad", "adr", "gairat"),
    *("grad-align-uiat", "fgsm-rs-uiat"),
)
SIZE = 16


def batches(count):
    source = torch.Generator().manual_seed(1)
    for i in range(count):
        x = torch.rand(SIZE, 1, 8, 8, generator=source)
        yield Batch(x.cuda(), (torch.arange(SIZE) % 10).cuda(), (torch.arange(SIZE) + i).cuda())


def trained(objective, *, recorded, steps=6, epochs=2, **more):
    torch.manual_seed(0)
    model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    shape = {"num_classes": 10, "image_shape": (1, 8, 8), "num_examples": 64}
    step = make_step(model, objective, optimizer, **shape, cuda_graphs=recorded, **more)
    if teacher_method(objective) is not None:
        step.add_teacher(copy.deepcopy(model))
    terms = [step(batch, epoch=epoch) for epoch in range(epochs) for batch in batches(steps)]
    assert (step.graphed is not None and step.graphed.recorded is not None) is recorded
    return model, step.state, terms


def assert_same_training(objective, **more):
    model, state, terms = trained(objective, recorded=False, **more)
    other, other_state, other_terms = trained(objective, recorded=True, **more)
    for mine, theirs in zip(terms, other_terms, strict=True):
        for name in mine:
            # One image's prediction may tip over.
            close = 1.5 / SIZE if name == "correct" else 2e-3
            torch.testing.assert_close(mine[name], theirs[name], rtol=2e-3, atol=close)
    for one, two in ((model, other), (state, other_state)):
        for name, value in one.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, two.state_dict()[name], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_step_is_the_step(method):
    assert_same_training(recipes.get(f"digits-{method}").objective)


@pytest.mark.parametrize("momentum", ["example", "class"])
def test_a_recorded_step_remembers_predictions(momentum):
    assert_same_training(uiat.UIAT(attack=uiat.PGD(threat=uiat.Linf(0.1), step_size=0.05, steps=2), momentum=momentum))


def test_awp_and_accumulation_are_recorded():
    assert_same_training(recipes.get("digits-uiat").objective, awp=0.01, awp_from_epoch=1, accumulate=2, clip_norm=1.0)


def test_each_epoch_has_its_own_weight():
    objective = uiat.UIAT(attack=uiat.PGD(threat=uiat.Linf(0.1), step_size=0.05, steps=1), ramp_epochs=4)
    _, _, terms = trained(objective, recorded=True, epochs=2)
    assert terms[5]["inverse_kl"] == 0 < terms[-1]["inverse_kl"]


class Reader(nn.Module):
    """A model that reads a value, which waits for the device."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1)) * (1 if x.sum().item() > 0 else 2)


def test_a_model_that_waits_is_left_as_it_is(caplog):
    model = Reader().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    step = make_step(model, OBJECTIVES["pgd-at"], optimizer, num_classes=10, image_shape=(1, 8, 8), cuda_graphs=True)
    with caplog.at_level("INFO", logger="uiat"):
        for batch in batches(8):
            step(batch)
    assert step.graphed.recorded is None
    assert "waits for the device" in caplog.text


def test_waits_are_seen():
    with cuda_graphs.host_waits() as found:
        torch.ones(1, device="cuda").item()
    assert found
    with cuda_graphs.host_waits() as found:
        torch.ones(1, device="cuda") + 1
    assert not found


class Stopping:
    """A listener that fails in the second epoch, once steps are recorded."""

    def step(self, epoch, step, steps, terms, images):
        if (epoch, step) == (1, 6):
            raise RuntimeError("stopped")

    def epoch(self, row):
        self.random = torch.cuda.get_rng_state()


def test_a_run_on_a_gpu_goes_on_where_it_was(tmp_path):
    changes = [("optimisation.epochs", "3"), ("model.width", "4"), ("compute.device", "cuda")]
    listener = Stopping()
    with pytest.raises(RuntimeError, match="stopped"):
        uiat.train(uiat.override(recipes.get("digits-uiat"), changes), run_dir=tmp_path / "run", listener=listener)
    last, _ = read_tensors(tmp_path / "run" / "last.safetensors")
    with reopen_run(tmp_path / "run") as training:
        assert (training.epoch, training.position) == (1, 0)
        # Sums on a GPU come in any order, so what follows is not compared bit for bit.
        assert torch.equal(torch.cuda.get_rng_state(), listener.random)
        for name, value in training.model.state_dict().items():
            assert torch.equal(value.cpu(), last[name])
        training.fit()
        assert len(training.history) == 3


def test_verdicts_are_those_of_the_cpu():
    torch.manual_seed(0)
    model = models.build("preact-resnet8", num_classes=10, image_shape=(3, 32, 32), width=8).eval()
    x = torch.rand(16, 3, 32, 32)
    y = model(x).argmax(dim=1)
    options = {"threat": uiat.Linf("1/255"), "attacks": ["clean", "pgd-20", "cw-20", "apgd-ce"], "selfchecks": False}
    here = uiat.evaluate(copy.deepcopy(model), x, y, **options)
    there = uiat.evaluate(model.cuda(), x, y, **options)
    apart = sum(a != b for a, b in zip(here.broken_by, there.broken_by, strict=True))
    assert apart <= 2
