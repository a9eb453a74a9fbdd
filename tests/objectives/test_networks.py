"""Networks beside the model: what a state saves of them, and what it does not."""

import copy

import torch
from torch import nn

from support.helpers import cnn
from support.objectives import OBJECTIVES, state_of
from uiat import ADR, LBGAT
from uiat.objectives import networks


def test_the_average_is_its_recursion_buffers_too():
    model = cnn()
    average = networks.AverageNetwork(model)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for seed in range(3):
        model.load_state_dict(cnn(seed=seed + 1).state_dict())
        model(torch.rand(4, 1, 8, 8))
        average.update(model, decay=0.75)
        for name, value in model.state_dict().items():
            counted = not value.is_floating_point()
            expected[name] = value if counted else 0.75 * expected[name] + 0.25 * value
    assert not average.network.training
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_a_part_that_is_set_aside_stays_set_aside_in_the_copy():
    body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False).eval()
    network = networks.copy_for_training(nn.Sequential(body, nn.Linear(2, 2)))
    assert network.training
    assert not network[0].training
    assert not any(p.requires_grad for p in network[0].parameters())


def test_a_state_saves_the_networks_that_change_and_no_teacher():
    model = cnn()
    names = set(model.state_dict())
    saved = {name: set(state_of(objective, model=model).state_dict()) for name, objective in OBJECTIVES.items()}
    assert saved["adr"] == {f"average.network.{name}" for name in names}
    assert saved["lbgat"] == {f"natural.{name}" for name in names}
    for name in ("hat", "dhat", "ard", "rslad"):
        assert not saved[name]
        assert len(networks.networks_in(state_of(OBJECTIVES[name]))) == 1
    assert not networks.networks_in(state_of(OBJECTIVES["uiat"]))


def test_no_random_number_is_drawn_for_a_network():
    model = cnn()
    before = torch.get_rng_state()
    for objective in (ADR(), LBGAT()):
        networks.add_networks(objective, nn.Module(), model)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_teacher_gives_logits_without_a_gradient():
    teacher = cnn()
    logits = networks.FrozenNetwork(copy.deepcopy(teacher))(torch.rand(3, 1, 8, 8, requires_grad=True))
    assert not logits.requires_grad
