"""The context managers that change a model, and what is left of the change afterwards: nothing."""

import pytest
import torch
from torch import nn

from support.helpers import assert_untouched, cnn, snapshot
from uiat import modes
from uiat.models.modes import attack_mode, frozen, frozen_statistics


def mixed() -> nn.Module:
    """A model in which neither modes nor requires_grad are uniform, as after someone's partial freezing."""
    model = nn.Sequential(cnn(), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)), nn.Linear(4, 2))
    model.train()
    model[0].body.eval()
    model[0].body.stage1.norm.train()
    model[1][0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
@pytest.mark.parametrize("raises", [False, True])
def test_crafting_restores_every_flag_one_by_one(batchnorm, raises):
    model = mixed()
    before = snapshot(model)
    try:
        with frozen(model, batchnorm=batchnorm):
            assert not any(p.requires_grad for p in model.parameters())
            model(torch.rand(4, 1, 8, 8))
            if raises:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert_untouched(model, before)


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
@pytest.mark.parametrize("mode", [False, True])
def test_crafting_sets_the_mode_that_was_asked_for(batchnorm, mode):
    model = mixed().train(mode)
    with frozen(model, batchnorm=batchnorm):
        for m in model.modules():
            norm = isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)
            assert m.training == (norm and batchnorm == "train")


def test_crafting_can_be_nested():
    model = mixed()
    before = snapshot(model)
    with frozen(model, batchnorm="train"):
        inside = snapshot(model)
        with frozen(model):
            pass
        assert_untouched(model, inside)
    assert_untouched(model, before)


def test_batch_statistics_are_used_but_not_kept():
    model = cnn()
    before = snapshot(model)
    x = torch.rand(6, 1, 8, 8) * 0.2
    with torch.no_grad():
        with frozen(model, batchnorm="train"):
            by_batch = model(x)
        with frozen(model):
            by_running = model(x)
        assert_untouched(model, before)
        expected = model.train()(x)  # moves the statistics, as ordinary training does
    assert torch.equal(by_batch, expected)
    assert not torch.allclose(by_batch, by_running)
    assert not torch.equal(model.body.stage1.norm.running_mean, before["state"]["body.stage1.norm.running_mean"])


@pytest.mark.parametrize("mode", [False, True])
def test_frozen_statistics_change_no_output(mode):
    model, x = cnn().train(mode), torch.rand(6, 1, 8, 8)
    before = snapshot(model)
    with frozen_statistics(model), torch.no_grad():
        frozen = model(x)
    assert_untouched(model, before)
    assert torch.equal(frozen, model(x))


def test_a_layer_that_never_tracked_still_does_not():
    layer = nn.BatchNorm2d(2, track_running_stats=False).train()
    with frozen_statistics(layer):
        layer(torch.rand(2, 2, 3, 3))
    assert layer.track_running_stats is False


def test_statistics_are_restored_after_an_exception():
    model = cnn()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="boom"), frozen_statistics(model):
        raise RuntimeError("boom")
    assert_untouched(model, before)


def test_the_old_place_and_names_still_work():
    assert (modes.crafting, modes.attacked) == (frozen, attack_mode)
    assert modes.frozen_statistics is frozen_statistics


def test_norms_of_a_part_that_is_set_aside_stay_in_eval_mode():
    body, head = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.BatchNorm2d(2)
    model = nn.Sequential(body, head).train()
    body.requires_grad_(False).eval()
    with frozen(model, batchnorm="train"):
        assert (body[1].training, head.training) == (False, True)
    assert (body[1].training, head.training) == (False, True)
    with frozen(model), frozen(model, batchnorm="train"):  # all parameters are frozen inside
        assert head.training
