"""Switches of the training step: what they compute is what the plain step computes, at another price."""

import copy
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import uiat
from uiat import Linf, models, recipes
from uiat.data import Batch
from uiat.inverse import UniversalInverse
from uiat.runs import settings
from uiat.speed.activation_checkpointing import checkpointed_blocks, find_blocks
from uiat.speed.compile import can_compile
from uiat.training import autotune, setup
from uiat.training.api import start_run
from uiat.training.optimizer import make_optimizer

SHAPE = {"num_classes": 10, "image_shape": (3, 16, 16)}
PLAIN = uiat.PGD(threat=Linf(0.1), step_size=0.05, steps=2, start="none")


def batch(count=12):
    torch.manual_seed(1)
    return Batch(torch.rand(count, 3, 16, 16), torch.arange(count) % 10, torch.arange(count))


def flat():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))


def residual():
    torch.manual_seed(2)
    return models.build("preact-resnet8", width=8, **SHAPE)


def stepped(model, objective, count=2, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = uiat.make_step(model, objective, optimizer, num_examples=12, **SHAPE, **options)
    for _ in range(count):
        terms = step(batch(), epoch=0)
    return {**model.state_dict(), **dict(step.state.named_buffers()), **terms}


def assert_equal(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("parts", [2, 5, 12, 100])
def test_an_accumulated_step_is_the_step_of_the_batch(parts):
    objective = uiat.PGDAT(attack=PLAIN)
    assert_equal(stepped(flat(), objective), stepped(flat(), objective, accumulate=parts), atol=1e-5, rtol=1e-4)


def test_accumulation_reaches_every_objective_and_clipping():
    found = stepped(flat(), uiat.UIAT(attack=PLAIN, momentum="example"), accumulate=3, clip_norm=0.1, awp=0.01)
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize(
    "objective", [uiat.PGDAT(attack=PLAIN), uiat.UIAT(attack=PLAIN), uiat.Trades()], ids=lambda o: o.name
)
@pytest.mark.parametrize("awp", [0.0, 0.01])
def test_recomputing_changes_no_bit(objective, awp):
    torch.manual_seed(0)
    kept = stepped(residual(), objective, awp=awp)
    torch.manual_seed(0)
    assert_equal(kept, stepped(residual(), objective, awp=awp, recompute=True), atol=0, rtol=0)


def test_recomputing_passes_blocks_twice_and_leaves_nothing_behind():
    model, calls = residual(), []
    copied = copy.deepcopy(model)
    for block in find_blocks(model):
        block.conv1.register_forward_hook(lambda *_: calls.append(1))
    with checkpointed_blocks(find_blocks(model)):
        model(batch().x).sum().backward()
    # The backward pass needs nothing that the last convolution of a block puts out, but all of the others.
    assert len(calls) == 2 * 3
    assert all("forward" not in vars(block) for block in find_blocks(model))
    assert vars(copied).keys() == vars(model).keys()


def test_recomputing_keeps_less():
    def kept(parts):
        size, model = 0, residual()

        def pack(tensor):
            nonlocal size
            size += tensor.nbytes
            return tensor

        with (
            checkpointed_blocks(find_blocks(model)[:parts]),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        ):
            model(batch().x)
        return size

    assert kept(3) < 0.4 * kept(0)


def test_a_model_without_blocks_cannot_be_recomputed():
    with pytest.raises(uiat.UserError, match="needs a model of blocks"):
        stepped(flat(), uiat.PGDAT(attack=PLAIN), recompute=True)
    with pytest.raises(uiat.UserError, match="compile and recompute"):
        uiat.Compute(compile=True, recompute=True)


FREE = uiat.PGD(threat=Linf(0.1), step_size=0.1, steps=0, start="uniform")


def test_replays_are_free_adversarial_training():
    """Algorithm 1 of Shafahi et al. 2019 from a random start, written out."""
    torch.manual_seed(4)
    found = stepped(flat(), uiat.PGDAT(attack=FREE), count=1, replays=3)
    model = flat()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(4)
    x, y = batch().x, batch().y
    torch.manual_seed(2)
    flat()  # as the weights above drew from the generator
    torch.manual_seed(1)
    torch.rand(12, 3, 16, 16)
    x_adv = FREE.perturb(model, x, y)
    for _ in range(3):
        x_adv = x_adv.detach().requires_grad_()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x_adv), y)
        loss.backward()
        optimizer.step()
        x_adv = (x_adv + 0.1 * x_adv.grad.sign() - x).clamp(-0.1, 0.1).add(x).clamp(0, 1)
    torch.testing.assert_close(found["adv_ce"], loss)
    assert_equal({k: found[k] for k in model.state_dict()}, dict(model.state_dict()), atol=1e-5, rtol=1e-4)


def test_replays_move_towards_a_higher_loss():
    model = flat()
    moved = FREE.single_step(batch().x, torch.ones(12, 3, 16, 16), batch().x)
    assert ((moved - batch().x) <= 0.1 + 1e-6).all()
    assert (moved >= batch().x).all()
    step = uiat.make_step(
        model, uiat.PGDAT(attack=FREE), torch.optim.SGD(model.parameters(), lr=0.0), **SHAPE, replays=1
    )
    once = step(batch())["adv_ce"]
    step.replays = 4
    assert step(batch())["adv_ce"] > once


@pytest.mark.parametrize(
    "objective",
    [
        uiat.UIAT(attack=FREE),
        uiat.UIAT(attack=FREE, inverse=UniversalInverse(radius=0.05, step_size=0.02, epoch=0)),
        uiat.Trades(attack=FREE),
        uiat.Mart(attack=FREE),
    ],
    ids=["uiat", "one-off", "trades", "mart"],
)
def test_replays_fit_any_method_with_weights_perturbed_and_parts(objective):
    found = stepped(flat(), objective, replays=2, awp=0.01, accumulate=2)
    assert all(value.isfinite().all() for value in found.values())


def test_replays_say_what_they_do_not_fit():
    with pytest.raises(uiat.UserError, match="takes them from replays"):
        stepped(flat(), uiat.PGDAT(attack=FREE))
    with pytest.raises(uiat.UserError, match="trains on adversarial examples, not 'standard'"):
        stepped(flat(), uiat.Standard(), replays=2)
    inverse = UniversalInverse(radius=0.05, step_size=0.02, regulariser="feature", regulariser_weight=1.0)
    with pytest.raises(uiat.UserError, match="set it to none"):
        stepped(residual(), uiat.UIAT(attack=FREE, inverse=inverse), replays=2)


def test_plain_turns_every_lever_off(tmp_path):
    run = recipes.get("digits-uiat")
    run = replace(run, compute=uiat.Compute(plain=True, precision="bf16", compile=True))
    with start_run(run, run_dir=tmp_path / "run") as training:
        assert training.step.crafted is training.model
        assert not training.step.try_kernels
        assert training.optimizer.defaults["fused"] is None
        weight = training.model.body.stage2.conv.weight
        assert weight.is_contiguous()
        assert not weight.is_contiguous(memory_format=torch.channels_last)
        with training.step.autocast():
            assert not torch.is_autocast_enabled("cpu")
    assert make_optimizer(flat(), run.optimisation).defaults["fused"] is True


def test_synchronised_batch_norm_needs_gpus(monkeypatch):
    model, cpu = nn.Sequential(nn.BatchNorm2d(3)), torch.device("cpu")
    assert setup.sync_batchnorm(model, cpu) is model

    class Two:
        size = 2

    monkeypatch.setattr(setup, "share", Two)
    with pytest.raises(uiat.UserError, match="needs GPUs"):
        setup.sync_batchnorm(model, cpu)
    assert isinstance(setup.sync_batchnorm(model, torch.device("cuda"))[0], nn.SyncBatchNorm)


# --- what "auto" comes to ---


def asked(**more):
    run = recipes.get("digits-pgd-at")
    return replace(run, compute=replace(run.compute, precision="auto", compile="auto", **more))


def decided(run, steps=1000):
    model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
    return autotune.resolve_auto(run, model, image_shape=(1, 8, 8), num_classes=10, steps=steps).compute


@pytest.mark.parametrize(("gain", "precision"), [(1.2, "fp32"), (2.0, "bf16")])
def test_precision_goes_by_what_the_machine_does_faster(monkeypatch, gain, precision):
    rates = {"bf16": gain, "fp32": 1.0}
    monkeypatch.setattr(autotune, "convolution_rate", lambda device, precision: rates[precision])
    assert decided(asked()).precision == precision
    assert decided(asked(plain=True)).precision == "fp32"


def test_a_device_without_bf16_computes_in_fp32(monkeypatch):
    def refuse(device, precision):
        raise RuntimeError("no such type")

    monkeypatch.setattr(autotune, "convolution_rate", refuse)
    assert decided(asked()).precision == "fp32"


@pytest.mark.parametrize(
    ("seconds", "steps", "compile"),
    [
        ([0.01], 100, False),  # 10 inner gradients a step: 10 s in all, which no compilation shortens
        ([0.7, 0.7, 0.5], 100, True),
        ([0.7, 0.7, 0.69], 100, False),  # no faster compiled
    ],
)
def test_compilation_goes_by_length_and_gain(monkeypatch, seconds, steps, compile):
    measured = iter(seconds)
    monkeypatch.setattr(autotune, "median_seconds", lambda work, times, device: next(measured))
    monkeypatch.setattr(autotune, "compiled", lambda model: model)
    assert decided(asked(), steps).compile is compile
    assert next(measured, None) is None


@pytest.mark.parametrize("off", [{"plain": True}, {"recompute": True}])
def test_compilation_is_not_tried_where_it_cannot_be(monkeypatch, off):
    monkeypatch.setattr(autotune, "compilation_pays", lambda *a, **k: pytest.fail("it was tried"))
    assert decided(asked(**off)).compile is False


@pytest.mark.parametrize(
    ("device", "there", "able"),
    [
        ("cpu", "g++", True),
        ("cpu", "gcc", False),
        ("cuda", "gcc", True),
        ("cuda", "clang", True),
        ("cuda", "g++", False),
    ],
)
def test_each_device_has_its_compilers(monkeypatch, device, there, able):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == there else None)
    assert can_compile(torch.device(device)) is able


def test_without_a_compiler_or_inner_problems_nothing_is_compiled(monkeypatch):
    assert decided(replace(asked(), objective=uiat.Standard()), 10**9).compile is False
    monkeypatch.setattr(autotune, "can_compile", lambda device: False)
    assert decided(asked(), 10**9).compile is False


def test_the_folder_says_what_auto_came_to_and_resume_keeps_it(tmp_path, monkeypatch):
    run = replace(asked(), optimisation=replace(asked().optimisation, epochs=1), model=uiat.Model(width=4))
    before = torch.get_rng_state()
    monkeypatch.setattr(autotune, "bf16_pays", lambda device: True)
    uiat.train(run, run_dir=tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())
    kept = settings.read_run(tmp_path / "run").compute
    assert (kept.precision, kept.compile) == ("bf16", False)
    monkeypatch.setattr(autotune, "bf16_pays", lambda device: pytest.fail("it was decided again"))
    uiat.resume(tmp_path / "run")


def test_auto_changes_nothing_about_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(autotune, "bf16_pays", lambda device: False)
    run = replace(asked(), optimisation=replace(asked().optimisation, epochs=1), model=uiat.Model(width=4))
    plain = replace(run, compute=uiat.Compute())
    one, other = (uiat.train(r, run_dir=tmp_path / str(i)).model.state_dict() for i, r in enumerate((run, plain)))
    assert_equal(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("value", ["maybe", 3])
def test_a_wrong_lever_is_refused_by_name(value):
    with pytest.raises(uiat.UserError, match=r"compute\.compile should be .*auto"):
        uiat.text.build(uiat.Run, {"compute": {"compile": value}})


def test_kernels_are_tried_inside_the_step_alone():
    model, seen = flat(), []
    model[0].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    stepped(model, uiat.PGDAT(attack=PLAIN), count=1, try_kernels=True)
    assert all(seen)
    assert not torch.backends.cudnn.benchmark
    seen.clear()
    stepped(model, uiat.PGDAT(attack=PLAIN), count=1)
    assert not any(seen)
