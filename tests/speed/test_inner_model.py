"""The copy for the inner problems: the model's gradients, whatever happens to the model, or the model itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import uiat
from support.helpers import assert_untouched, batch, snapshot
from uiat import models, recipes
from uiat.models.bpda import BPDA
from uiat.models.modes import frozen
from uiat.models.outputs import logits_only
from uiat.speed.inner_model import InnerModel
from uiat.speed.tensor_cores import PaddedConv, StridedPointwise, tensor_core_form
from uiat.training.step import make_step

SHAPE = (3, 16, 16)
NETS = {"small-cnn": 4, "mnist-cnn": 4, "resnet18": 4, "preact-resnet8": 4, "wrn-10-1": 4}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@pytest.fixture
def images():
    return torch.rand(4, *SHAPE, dtype=torch.float64)


def build(name="small-cnn", dtype=torch.float64):
    torch.manual_seed(0)
    width = None if name.startswith("wrn") else NETS[name]
    return shake(models.build(name, num_classes=3, image_shape=SHAPE, width=width).to(dtype))


def shake(model):
    """Weights and statistics other than they were, as after some steps."""
    for module in model.modules():
        if isinstance(module, NORMS):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def gradient(model, x):
    x = x.clone().requires_grad_()
    with frozen(model):
        return torch.autograd.grad(F.cross_entropy(model(x).to(x.dtype), torch.arange(len(x)) % 3), x)[0]


def norms(model):
    return sum(isinstance(m, NORMS) for m in model.modules())


@pytest.mark.parametrize("tensor_cores", [False, True])
@pytest.mark.parametrize(("name", "left"), [("small-cnn", 0), ("mnist-cnn", 0), ("resnet18", 0), ("preact-resnet8", 4)])
def test_the_gradients_are_the_models_also_after_a_step(name, left, tensor_cores, images):
    model = build(name).train()
    inner = InnerModel(model, SHAPE, tensor_cores=tensor_cores)
    for _ in range(2):
        before = snapshot(model)
        found = inner()
        assert found is not model
        assert found is inner()  # made once
        assert norms(found) == left  # those that follow a sum stay
        torch.testing.assert_close(gradient(found, images), gradient(model, images), atol=1e-12, rtol=1e-9)
        assert_untouched(model, before)
        shake(model)


def test_each_network_of_the_package_has_a_copy():
    for name in NETS:
        assert InnerModel(build(name), SHAPE)._copy is not None


def test_cast_weights_are_those_of_autocast_to_the_bit(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 3)).eval()
    found, x = InnerModel(model, SHAPE, half=True)(), images.float()
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient(found, x), gradient(model, x))


def test_in_half_precision_the_copy_is_as_near_to_fp32_as_autocast(images):
    model, x = build("small-cnn", torch.float32).eval(), images.float()
    exact = gradient(model, x).flatten()
    with torch.autocast("cpu", torch.bfloat16):
        found = [gradient(m, x).flatten() for m in (InnerModel(model, SHAPE, half=True)(), model)]
    cosines = [F.cosine_similarity(g, exact, 0) for g in found]
    assert cosines[0] > 0.99
    assert cosines[0] > cosines[1] - 0.002


def test_a_float64_network_is_not_cast_as_autocast_does_not(images):
    model = build().eval()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(gradient(InnerModel(model, SHAPE, half=True)(), images), gradient(model, images))


def test_a_fault_that_new_statistics_would_hide_is_found():
    # The norm is the stand-in of a defence: it takes the convolution's output, and the defence reads it too.
    class Between(nn.Module):
        __module__ = "torch.nn.modules.some"

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x):
            with torch.no_grad():
                value = x.clamp(-1, 1)
            stand_in = self.norm(x)
            return value + (stand_in - stand_in.detach())

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Between(), nn.Flatten(), nn.Linear(8 * 14 * 14, 3))
    assert InnerModel(model, SHAPE)() is model


def test_the_decision_does_not_depend_on_the_weights():
    model = build()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert InnerModel(model, SHAPE)() is not model


def test_without_a_compiler_the_first_call_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("uiat.speed.compile.can_compile", lambda device: False)
    for model in (build(), Own(nn.Flatten(), nn.Linear(768, 3))):
        with pytest.raises(uiat.UserError, match="compile needs a compiler"):
            InnerModel(model, SHAPE, compile=True)


def test_a_layer_under_two_names_is_replaced_under_both(images):
    conv = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten(), nn.Linear(768, 3))
    found = InnerModel(model, SHAPE, half=True)()
    assert found[0] is found[2]
    assert found[0] is not conv


def test_channels_last_weights_stay_so():
    found = InnerModel(build().to(memory_format=torch.channels_last), SHAPE)()
    weight = found.body.stage2.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.requires_grad


class Own(nn.Sequential):
    pass


def hooked(model):
    model.body.stage1.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def overridden(model):
    model.head.forward = lambda x: x[:, :3]
    return model


def parametrised(model):
    weight_norm(model.body.stage1.conv)
    return model


def at_random(model):
    model.body.pool = nn.Sequential(model.body.pool, nn.Dropout1d(0.5))
    return model


def hooked_backward(model):
    model.body.stage1.register_full_backward_pre_hook(lambda module, gradients: gradients)
    return model


def with_own_defence(model):
    return nn.Sequential(BPDA(lambda x: (4 * x).round() / 4), model)


class Caching(nn.Linear):
    """As of some networks of timm: in eval mode it keeps what it computed of its weights."""

    __module__ = "timm.models.some"


def caching(model):
    model.head = Caching(16, 3).double()
    return model


@pytest.mark.parametrize("change", [Own, hooked, hooked_backward, overridden, parametrised, with_own_defence, caching])
def test_where_a_copy_could_miss_something_the_model_itself_is_given(change):
    model = change(build())
    assert InnerModel(model, SHAPE)() is model


def test_a_layer_without_a_batchnorm_that_follows_it_needs_no_copy():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    assert InnerModel(model, SHAPE)() is model


def test_dropout_is_off_in_the_copy(images):
    model = at_random(build()).train()
    torch.testing.assert_close(gradient(InnerModel(model, SHAPE)(), images), gradient(model, images))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "head", nn.Linear(16, 3).double()),
        lambda model: setattr(model.head, "weight", nn.Parameter(torch.randn(3, 16).double())),
        lambda model: setattr(model.body.stage1, "act", nn.SiLU()),
        lambda model: model.body.stage1.norm.register_buffer("running_mean", torch.ones(4).double()),
        lambda model: setattr(model.body.stage1.norm, "eps", 0.5),
        lambda model: setattr(model.body.stage2.act, "beta", 3),
        lambda model: overridden(model),
    ],
    ids=["layer", "weight", "activation", "buffer", "eps", "value", "forward"],
)
def test_other_layers_and_tensors_are_followed(change, images):
    model = build()
    model.body.stage2.act = nn.Softplus()
    inner = InnerModel(model, SHAPE)
    inner()
    change(model)
    torch.testing.assert_close(gradient(inner(), images), gradient(model, images))


def test_a_hook_that_comes_later_is_called_and_one_that_goes_is_forgotten():
    model = build()
    inner, called = InnerModel(model, SHAPE), []
    handle = model.body.stage1.conv.register_forward_hook(lambda *_: called.append(1))
    inner()(torch.rand(2, *SHAPE).double())
    assert called
    handle.remove()
    assert inner() is not model


def test_the_packages_own_hook_changes_nothing():
    model = build().train()
    inner = InnerModel(model, SHAPE)
    with logits_only(model):
        assert inner() is not model
        model.head = nn.Linear(16, 3).double()
        assert inner() is not model  # made anew, without the hook
    assert not inner()._forward_hooks


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (nn.Conv2d(3, 4, 3, padding=1, bias=False), PaddedConv),
        (nn.Conv2d(3, 4, 3, stride=2, dilation=2), PaddedConv),
        (nn.Conv2d(16, 4, 1, stride=2, bias=False), StridedPointwise),
        (nn.Conv2d(16, 4, 1, stride=(1, 2)), StridedPointwise),
        (nn.Conv2d(16, 4, 3, stride=2), None),
        (nn.Conv2d(16, 4, 1), None),
        (nn.Conv2d(16, 4, 1, stride=2, padding=1), None),
        (nn.Conv2d(4, 4, 3, groups=2), None),
        (nn.Conv2d(3, 4, 3, padding="same"), None),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), None),
        (nn.Linear(3, 4), None),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_forms_for_matrix_units_compute_the_same(layer, form, memory_format):
    found = tensor_core_form(layer)
    assert form is None if found is None else isinstance(found, form)
    if found is not None:
        x = torch.rand(2, layer.in_channels, 9, 8).contiguous(memory_format=memory_format)
        torch.testing.assert_close(found(x), layer(x), atol=1e-6, rtol=1e-5)


METHODS = [name for name in recipes.names() if name.startswith("digits-")]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_each_method_is_the_step_without_the_copy(name):
    run, weights = recipes.get(name), []
    for fold in (False, True):
        torch.manual_seed(0)
        model = models.build("small-cnn", num_classes=4, image_shape=(1, 8, 8), width=4).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        teacher = models.build("small-cnn", num_classes=4, image_shape=(1, 8, 8), width=4).double()
        shape = {"num_classes": 4, "image_shape": (1, 8, 8), "num_examples": 12}
        more = {"teacher": teacher, "replays": run.optimisation.replays, "fold": fold}
        step = make_step(model, run.objective, optimizer, **shape, **more)
        for seed in (1, 2):
            given = batch(classes=4, image_shape=(1, 8, 8), seed=seed)
            step(uiat.Batch(given.x.double(), given.y, given.index))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights, atol=1e-7, rtol=1e-6)
