"""The options of a step: the same names everywhere, and what an objective or a device does not allow."""

from dataclasses import fields, replace
from typing import get_type_hints

import pytest
import torch

from support.helpers import mlp, pgd
from uiat import ADR, PGD, PGDAT, UIAT, Compute, Optimisation, Run, Standard, UserError, make_step
from uiat.inverse import UniversalInverse
from uiat.training.step_options import StepKeywords, StepOptions

FREE = pgd(0, start="uniform")


class Own(PGDAT):
    """A method of one's own, of which nothing is known."""


class OwnAttack(PGD):
    """An attack of one's own."""


class OwnInverse(UniversalInverse):
    """An inverse adversary of one's own."""


def test_type_checkers_know_every_option():
    hints = get_type_hints(StepOptions)
    assert {field.name: hints[field.name] for field in fields(StepOptions)} == get_type_hints(StepKeywords)


def test_a_runs_options_are_those_of_its_settings():
    optimisation = Optimisation(clip_norm=1.0, awp=0.01, awp_from_epoch=2, accumulate=3, replays=4)
    compute = Compute(precision="bf16", compile=True, cuda_graphs=False)
    run = Run(optimisation=optimisation, compute=compute)
    more = {"precision": "bf16", "compile": True, "recompute": False, "cuda_graphs": False, "try_kernels": True}
    same = {name: getattr(optimisation, name) for name in ("clip_norm", "awp", "awp_from_epoch", "accumulate")}
    assert StepOptions.from_run(run) == StepOptions(**same, replays=4, **more)
    assert StepOptions.from_run(replace(run, compute=Compute(recompute=True))).recompute
    assert not StepOptions.from_run(replace(run, compute=Compute(fold=False))).fold
    plain = StepOptions.from_run(Run(compute=Compute(plain=True, precision="bf16", compile=True)))
    assert plain == StepOptions(fold=False)


def test_a_wrong_option_is_refused(unchecked):
    model = mlp()
    make = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "num_classes": 4, "image_shape": (1, 8, 8)}
    with pytest.raises(UserError, match="did you mean 'bf16'"):
        make_step(model, Standard(), **make, precision="bf61")
    with pytest.raises(TypeError, match="awpp"):
        make_step(model, Standard(), **make, awpp=1)


@pytest.mark.parametrize(
    ("device", "more", "recorded"),
    [("cuda", {}, True), ("cpu", {}, False), ("cuda", {"recompute": True}, False), ("cuda", {"replays": 2}, False)],
)
def test_a_step_is_recorded_on_a_gpu_alone_and_not_with_everything(device, more, recorded):
    options = StepOptions(cuda_graphs=True, **more)
    found = options.adapt_to(PGDAT(attack=FREE if more.get("replays") else pgd()), torch.device(device))
    assert found == replace(options, cuda_graphs=recorded, fold=not options.recompute)


@pytest.mark.parametrize(
    ("objective", "fold"),
    [
        (PGDAT(), True),
        (PGDAT(attack=pgd(batchnorm="train")), False),
        (Standard(), False),
        (ADR(), False),
        (Own(), False),
        (PGDAT(attack=OwnAttack()), False),
        (UIAT(), True),
        (UIAT(inverse=OwnInverse()), False),
    ],
)
def test_the_packages_methods_in_eval_mode_pass_a_copy(objective, fold):
    assert StepOptions().adapt_to(objective, torch.device("cpu")).fold is fold
