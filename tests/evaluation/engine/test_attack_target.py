"""A model under attack: what its passes cost, and that they are exact."""

import torch
from torch import nn

from uiat.evaluation.engine.attack_target import AttackTarget, exact_inference
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
from uiat.models.inspect import Target


def make():
    x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    return AttackTarget(Target(model, x), x, y, torch.arange(5), AdaptiveBatchSize(2))


def test_costs_are_those_since_the_last_call():
    target = make()
    target.classify(target.x[:3], torch.arange(3))
    target.add_count("projected", 2)
    target.add_count("projected", 1)
    first, second = target.pop_costs(), target.pop_costs()
    assert (first["forward"], first["backward"], first["projected"]) == (3, 0, 3)
    assert (second["forward"], "projected" in second) == (0, False)


def test_classify_says_which_rows_are_wrong():
    target = make()
    logits, wrong = target.classify(target.x, torch.arange(5))
    assert torch.equal(wrong, logits.argmax(1) != target.y)


def test_inside_the_model_is_frozen_and_afterwards_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    allowed = torch.backends.cudnn.allow_tf32
    with exact_inference(model):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        assert not torch.backends.cudnn.allow_tf32
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.backends.cudnn.allow_tf32 == allowed
