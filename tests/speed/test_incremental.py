"""Passes on images that changed in a window alone: as whole passes give them, or not used."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import uiat
from uiat.attacks import Square
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, begin
from uiat.models.architectures import GlobalAveragePool
from uiat.speed.fast_copy import CountingModel, make_fast_copy
from uiat.speed.incremental import Incremental

MODELS = ["small-cnn", "resnet18", "preact-resnet8"]


def built(name, size=32):
    torch.manual_seed(0)
    model = uiat.models.build(name, num_classes=10, image_shape=(3, size, size), width=4)
    for module in model.modules():  # not those of a fresh model, where every shift is zero
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.bias.data.uniform_(-0.2, 0.2)
    return model.eval()


def changed(x, corner, pixels):
    """The images with other pixels in the windows."""
    x = x.clone()
    for image, top, left in zip(x, *corner, strict=True):
        image[:, top : top + pixels, left : left + pixels] = torch.rand(x.shape[1], pixels, pixels)
    return x


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_maps_are_those_of_whole_passes(name):
    x = torch.rand(4, 3, 32, 32)
    incremental = make_fast_copy(built(name), x).incremental
    assert incremental is not None

    @settings(max_examples=8, deadline=None)
    @given(pixels=st.integers(1, 12), data=st.data())
    def check(pixels, data):
        count = incremental.count_small(pixels)
        if count == 0:
            return
        place = st.lists(st.integers(0, 32 - pixels), min_size=4, max_size=4).map(torch.tensor)
        corner = (data.draw(place), data.draw(place))
        with torch.no_grad():
            maps, new = incremental.compute_maps(x, count), changed(x, corner, pixels)
            before = [m.clone() for m in maps]
            logits, changes = incremental(new, corner, pixels, maps)
            torch.testing.assert_close(logits, incremental.model(new), atol=1e-5, rtol=1e-4)
            for mine, whole in zip(maps, incremental.compute_maps(new, count), strict=True):
                torch.testing.assert_close(mine, whole, atol=1e-5, rtol=1e-4)
            undone = torch.tensor([True, False, True, False])
            for change in changes:
                change.undo(undone)
        for mine, old, whole in zip(maps, before, incremental.compute_maps(new, count), strict=True):
            torch.testing.assert_close(mine[undone], old[undone], atol=0, rtol=0)
            torch.testing.assert_close(mine[~undone], whole[~undone], atol=1e-5, rtol=1e-4)

    check()


class Skip(nn.Module):
    """A layer that puts out the image as well, around the chain."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x).mean((2, 3)) + x.mean((2, 3))


class Centred(nn.Module):
    """Sees the whole map."""

    def forward(self, x):
        return x - x.mean((2, 3), keepdim=True)


class Levels(nn.Module):
    """Swallows a NaN: where it looks cannot be seen in that way."""

    def forward(self, x):
        return (x.nan_to_num() * 7).round() / 7


class Positions(nn.Module):
    """Says something else at each place."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.rand(1, 3, 32, 32))

    def forward(self, x):
        return x + self.place[:, :, : x.shape[2], : x.shape[3]]


class Writing(nn.Module):
    """Overwrites what it is given."""

    def forward(self, x):
        return x.mul_(2).mean((2, 3))


def conv():
    return nn.Conv2d(3, 3, 3, padding=1)


@pytest.mark.parametrize(
    "model",
    [
        Skip(nn.Sequential(conv(), nn.SiLU())),
        nn.Sequential(Centred(), conv(), GlobalAveragePool()),
        nn.Sequential(Positions(), conv(), GlobalAveragePool()),
        nn.Sequential(Levels(), conv(), GlobalAveragePool()),
        nn.Sequential(conv(), Writing()),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)),
        nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), GlobalAveragePool()),
        nn.Sequential(nn.Conv2d(3, 3, 29, padding=14), GlobalAveragePool()),
    ],
    ids=["path around", "global", "positions", "swallowed", "overwritten", "no maps", "circular", "wide"],
)
def test_where_it_would_be_wrong_it_is_not_used(model):
    x = torch.rand(4, 3, 32, 32)
    assert Incremental(model.requires_grad_(False).eval(), x).layers == []
    assert not any(module._forward_hooks for module in model.modules())


def test_an_overwriting_activation_is_part_of_the_cached_layer():
    model = nn.Sequential(conv(), nn.ReLU(inplace=True), conv(), nn.ReLU(inplace=True), GlobalAveragePool())
    incremental = Incremental(model.requires_grad_(False).eval(), torch.rand(2, 3, 32, 32))
    assert [type(cached.layer) for cached in incremental.layers] == [nn.ReLU, nn.ReLU]


def test_images_that_are_not_square_take_whole_passes():
    model = nn.Sequential(conv(), nn.SiLU(), GlobalAveragePool())
    assert Incremental(model, torch.rand(2, 3, 32, 24)).layers == []


def test_only_a_copy_of_its_own_is_given_hooks():
    assert CountingModel(built("small-cnn")).incremental is None


class Whole(CountingModel):
    """The guide without it."""

    incremental = None


def test_square_goes_the_same_way(monkeypatch):
    monkeypatch.setattr("uiat.speed.incremental.LEAST_SAVED", 0)  # the network is small, so that the test is short
    x = torch.rand(24, 3, 32, 32)
    model = built("preact-resnet8")
    y = model(x).argmax(1)
    guide = make_fast_copy(model, x)
    attack = Square(threat=uiat.Linf("2/255"), iterations=1_500)
    points = [begin(attack, guide, x, y, keys(0, torch.arange(24))) for _ in range(2)]
    before = guide.forward
    mine = advance(attack, guide, points[0], 700, 760)
    # A pass for the maps, and then one a query.
    assert guide.forward - before <= 61 * 24
    assert set(mine) == set(points[0])
    whole = advance(attack, Whole(guide.model), points[1], 700, 760)
    assert mine["broken"].equal(whole["broken"])
    assert ((mine["x_adv"] - whole["x_adv"]).abs().amax((1, 2, 3)) < 1e-6).float().mean() > 0.9
    robust = ~mine["broken"]
    assert robust.any()
    loss, _ = attack._evaluate(guide.model(mine["x_adv"]), y)
    torch.testing.assert_close(loss[robust], mine["loss"][robust], atol=1e-5, rtol=1e-4)


def test_a_batch_that_saves_little_work_takes_whole_passes():
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(3, 32, 32))
    counted = make_fast_copy(model, torch.rand(4, 3, 32, 32))
    incremental, before = counted.incremental, counted.forward
    assert [incremental.count_usable(4, images) for images in (1, 4, 16, 64)] == [0, 0, 4, 4]
    assert counted.forward == before
    small = make_fast_copy(
        uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8)), torch.rand(4, 1, 8, 8)
    )
    assert small.incremental.count_usable(1, 1_000) == 0


def test_a_model_whose_operations_cannot_be_counted_uses_what_it_can(monkeypatch):
    incremental = make_fast_copy(built("small-cnn"), torch.rand(4, 3, 32, 32)).incremental
    monkeypatch.setattr("torch.utils.flop_counter.FlopCounterMode.get_total_flops", lambda _: 0)
    assert incremental.count_usable(4, 1) == 4
