"""The generator of inverse examples: its formula, its optimiser against torch's, its file, what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from support.balls import length, slack
from support.helpers import batch, cnn
from support.objectives import GENERATOR, state_of, uiat
from uiat import L1, L2, Linf, load_generator, make_step
from uiat.errors import UserError
from uiat.inverse import InverseGenerator, inverse_loss
from uiat.models.modes import frozen
from uiat.speed.cuda_graphs import host_draws
from uiat.system.tensor_files import write_tensors


def make(threat=None, width=4):
    torch.manual_seed(3)
    generator = InverseGenerator(num_classes=4, channels=1, width=width, threat=threat or Linf(0.1))
    generator.last.weight.normal_()
    return generator


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(3.0)])
def test_it_is_its_formula_in_the_ball(threat):
    generator, b = make(threat), batch(6)
    first, middle, last = (
        (layer.weight.double(), layer.bias.double()) for layer in (generator.first, generator.middle, generator.last)
    )
    x = b.x.double()
    hidden = F.conv2d(x, *first, padding=1) + generator.classes.double()[b.y].view(6, 4, 1, 1)
    r = F.conv2d(F.conv2d(hidden.relu(), *middle, padding=1).relu(), *last, padding=1)
    sizes = {"Linf": 0, "L2": r.square().sum((1, 2, 3)).sqrt(), "L1": r.abs().sum((1, 2, 3))}[threat.norm]
    d = threat.epsilon * (r.tanh() if threat.norm == "Linf" else r / (1 + sizes.view(-1, 1, 1, 1)))
    x_inv = generator(b.x, b.y)
    torch.testing.assert_close(x_inv.double(), (x + d).clamp(0, 1), rtol=0, atol=1e-6)
    assert (length(threat, x_inv - b.x) <= threat.epsilon + slack(threat, b.x)).all()
    other = generator(b.x, (b.y + 1) % 4)
    assert ((other - x_inv).flatten(1).norm(dim=1) > 1e-4).all()  # it reads the label


def test_three_steps_are_those_of_torchs_adam():
    model, b, generator = cnn(), batch(8), make()
    reference = copy.deepcopy(generator).requires_grad_(True)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    with frozen(model):
        loss = inverse_loss(model, b.x, b.x, b.y, regulariser="none", weight=1.0)
        for _ in range(3):
            expected = reference(b.x, b.y).detach()
            x_inv, logits = generator.improve(loss, b.x, b.y, learning_rate=0.01)
            torch.testing.assert_close(x_inv, expected, rtol=0, atol=1e-6)
            torch.testing.assert_close(logits, model(expected))
            optimizer.zero_grad()
            F.cross_entropy(model(reference(b.x, b.y)), b.y).backward()
            optimizer.step()
    for mine, theirs in zip(generator.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        assert not mine.requires_grad
    assert generator.steps == 3


def test_the_models_optimiser_leaves_it_alone_and_its_state_is_saved():
    model, b = cnn(), batch()
    objective = uiat(inverse=GENERATOR)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = make_step(model, objective, optimizer, num_classes=4, image_shape=(1, 8, 8))
    before = {name: value.clone() for name, value in step.state.state_dict().items()}
    assert {"generator.first.weight", "generator.first_moment", "generator.steps"} <= before.keys()
    assert len(optimizer.param_groups) == 1
    step(b)
    after = step.state.state_dict()
    assert not torch.equal(after["generator.last.weight"], before["generator.last.weight"])
    assert all(p.grad is None for p in step.state.parameters())


class NoWait(TorchDispatchMode):
    """Refuses what would make the host wait for a device, or read the size of a result from it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert str(function).split(".")[1] not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")
        return function(*args, **(kwargs or {}))


def test_a_step_waits_for_no_device_and_draws_nothing():
    model, b, objective = cnn(), batch(), uiat(inverse=GENERATOR)
    state = state_of(objective)
    with frozen(model), NoWait(), host_draws() as draws:
        objective.inverse.find(model, b.x, b.x, b.y, state=state, threat=objective.threat, epoch=0)
    assert draws == []
    assert state.generator.steps == 1


class Rounding(nn.Module):
    """A model whose logits have a gradient for its weights, and none for its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, x):
        return self.layer(x.detach().flatten(1))


def test_a_model_without_a_gradient_is_one_line():
    generator, b, model = make(), batch(4), Rounding()
    before = copy.deepcopy(generator.state_dict())
    loss = inverse_loss(model, b.x, b.x, b.y, regulariser="none", weight=1.0)
    for inside in (torch.enable_grad(), frozen(model)):
        with inside, pytest.raises(UserError, match="no gradient with respect to its input: it detaches or quantises"):
            generator.improve(loss, b.x, b.y, learning_rate=0.01)
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    with pytest.raises(UserError, match="no gradient with respect to its input"):
        uiat(inverse=GENERATOR).perturb(model, b, state_of(uiat(inverse=GENERATOR)), epoch=0)


@pytest.mark.parametrize("threat", [Linf("8/255"), L2(0.5)])
def test_saving_and_loading_keep_every_bit(threat, tmp_path):
    generator, b = make(threat, width=5), batch()
    generator.save(tmp_path / "generator.safetensors")
    loaded = load_generator(tmp_path)
    assert loaded.threat == threat
    assert torch.equal(loaded(b.x, b.y), generator(b.x, b.y))


WEIGHTS = {name: value.clone() for name, value in make().named_parameters()}
META = {"kind": "uiat.generator", "threat": "Linf:0.1"}


@pytest.mark.parametrize(
    ("change", "meta", "says"),
    [
        ({}, {"kind": "uiat.inverse"}, "is not a file of a generator"),
        ({"classes": torch.zeros(4)}, {}, "is not a file of a generator"),
        ({"middle.weight": torch.zeros(2, 2, 3, 3)}, {}, "its weights are not those of one generator"),
        ({"last.bias": torch.full((1,), torch.nan)}, {}, "weights that are not finite"),
    ],
)
def test_a_file_of_something_else_is_refused(change, meta, says, tmp_path):
    write_tensors(tmp_path / "generator.safetensors", WEIGHTS | change, META | meta)
    with pytest.raises(UserError, match=says) as caught:
        load_generator(tmp_path / "generator.safetensors")
    assert "\n" not in str(caught.value)


def test_a_run_without_one_is_told_so(tmp_path):
    with pytest.raises(UserError, match="has no generator"):
        load_generator(tmp_path)


def test_regularisers_and_detached_targets_train_it_too():
    model, b = cnn(), batch()
    for fields in ({"inverse_gradient": False}, {"momentum": "class"}):
        objective = uiat(inverse=replace(GENERATOR, regulariser="logit"), **fields)
        state = state_of(objective)
        examples = objective.perturb(model, b, state, epoch=0)
        assert torch.isfinite(examples.target).all()
        assert (examples.x_inv is None) == ("inverse_gradient" in fields)
        assert state.generator.steps == 1
