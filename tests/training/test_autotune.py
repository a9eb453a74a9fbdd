"""Settings left to the machine ("auto"): resolved by measuring, once, and kept in the run's folder."""

from dataclasses import replace

import pytest
import torch

import uiat
from support import tiny
from uiat import models, recipes
from uiat.runs import settings
from uiat.speed import inner_model
from uiat.training import autotune


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """A machine that is as fast in either precision: measuring this one would take seconds."""
    monkeypatch.setattr(autotune, "convolution_rate", lambda device, precision: 1.0)


def auto_run(**more):
    run = recipes.get("digits-pgd-at")
    return replace(run, compute=replace(run.compute, precision="auto", compile="auto", **more))


def resolve(run, steps=1000):
    model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
    return autotune.resolve_auto(run, model, image_shape=(1, 8, 8), num_classes=10, steps=steps).compute


@pytest.mark.parametrize(("gain", "precision"), [(1.2, "fp32"), (2.0, "bf16")])
def test_precision_goes_by_what_the_machine_does_faster(monkeypatch, gain, precision):
    rates = {"bf16": gain, "fp32": 1.0}
    monkeypatch.setattr(autotune, "convolution_rate", lambda device, precision: rates[precision])
    assert resolve(auto_run()).precision == precision
    assert resolve(auto_run(plain=True)).precision == "fp32"


def test_a_device_without_bf16_computes_in_fp32(monkeypatch):
    def refuse(device, precision):
        raise RuntimeError("no such type")

    monkeypatch.setattr(autotune, "convolution_rate", refuse)
    assert resolve(auto_run()).precision == "fp32"


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
    monkeypatch.setattr(inner_model, "compile_model", lambda model: model)
    assert resolve(auto_run(), steps).compile is compile
    assert next(measured, None) is None


@pytest.mark.parametrize("off", [{"plain": True}, {"recompute": True}])
def test_compilation_is_not_tried_where_it_cannot_be(monkeypatch, off):
    monkeypatch.setattr(autotune, "is_compiling_faster", lambda *a, **k: pytest.fail("it was tried"))
    assert resolve(auto_run(**off)).compile is False


def test_without_a_compiler_or_inner_problems_nothing_is_compiled(monkeypatch):
    assert resolve(replace(auto_run(), objective=uiat.Standard()), 10**9).compile is False
    monkeypatch.setattr(autotune, "can_compile", lambda device: False)
    assert resolve(auto_run(), 10**9).compile is False


TINY = tiny.run(epochs=1, compute={"precision": "auto", "compile": "auto"})


def test_the_folder_says_what_auto_came_to_and_resume_keeps_it(tmp_path, monkeypatch):
    before = torch.get_rng_state()
    monkeypatch.setattr(autotune, "is_bf16_faster", lambda device: True)
    uiat.train(TINY, run_dir=tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())
    kept = settings.read_run(tmp_path / "run").compute
    assert (kept.precision, kept.compile) == ("bf16", False)
    monkeypatch.setattr(autotune, "is_bf16_faster", lambda device: pytest.fail("it was resolved again"))
    uiat.resume(tmp_path / "run")


def test_auto_changes_nothing_about_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(autotune, "is_bf16_faster", lambda device: False)
    for name, run in (("auto", TINY), ("plain", tiny.run(epochs=1))):
        uiat.train(run, run_dir=tmp_path / name)
    assert tiny.differences(tmp_path / "auto", tmp_path / "plain") == []


@pytest.mark.parametrize("error", [OSError(28, "full"), MemoryError(), ValueError("odd"), ImportError("no compiler")])
def test_a_measurement_that_fails_costs_the_gain_and_never_the_run(monkeypatch, caplog, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(autotune, "convolution_rate", fail)
    monkeypatch.setattr(autotune, "can_compile", lambda device: True)
    monkeypatch.setattr(autotune, "is_compiling_faster", fail)
    compute = resolve(auto_run())
    assert (compute.precision, compute.compile) == ("fp32", False)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"compute.{name} keeps to the plain form" for name in ("precision", "compile")
    ]
