"""Modules in other forms than a plain one: evaluated and trained to the same numbers, or refused in a sentence."""

import warnings

import pytest
import torch
from torch import nn

import uiat
from uiat import PGD, PGDAT, Linf, Optimisation, UserError

X, Y = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3
ATTACK = PGD(threat=Linf(0.1), step_size=0.05, steps=2)


def plain():
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    return nn.Sequential(*layers)


def exported():
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(plain().eval(), (X[:2],), dynamic_shapes=({0: batch},)).module()


def quantised():
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(plain().eval(), {nn.Linear}, dtype=torch.qint8)


FORMS = {
    "scripted": lambda: torch.jit.script(plain()),
    "traced": lambda: torch.jit.trace(plain().eval(), X[:2]),
    "frozen script": lambda: torch.jit.freeze(torch.jit.script(plain().eval())),
    "exported": exported,
    "compiled": lambda: torch.compile(plain(), backend="eager"),
    "data-parallel": lambda: nn.DataParallel(plain()),
    "traced by fx": lambda: torch.fx.symbolic_trace(plain()),
    "quantised": quantised,
}
# A trace keeps the mode that it was made in: it cannot be trained as the module can.
TRAINABLE = ["scripted", "compiled", "data-parallel", "traced by fx"]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # of torch, about scripts and quantisation
            warnings.filterwarnings("ignore", category=category)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        yield


def judge(model, attacks):
    return uiat.evaluate(model, X, Y, threat=Linf(0.1), attacks=attacks, selfchecks=False)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "quantised"])
def test_it_is_evaluated_to_the_numbers_of_the_plain_module(form):
    few = uiat.attacks.Square(threat=Linf(0.1), iterations=50)
    attacks = ["pgd-5", few] if form == "scripted" else ["pgd-5"]
    assert judge(FORMS[form](), attacks).broken_by == judge(plain(), attacks).broken_by
    torch.testing.assert_close(
        uiat.PGD(threat=Linf(0.1), start="none")(FORMS[form](), X, Y),
        uiat.PGD(threat=Linf(0.1), start="none")(plain().eval(), X, Y),
    )


@pytest.mark.parametrize("form", TRAINABLE)
def test_it_is_trained_to_the_weights_of_the_plain_module(form):
    weights = []
    for make in (FORMS[form], plain):
        torch.manual_seed(0)
        options = {"objective": PGDAT(attack=ATTACK), "optimisation": Optimisation(epochs=1), "batch_size": 8}
        weights.append(list(uiat.fit(make(), (X, Y), progress=False, **options).model.parameters()))
    for theirs, ours in zip(*weights, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def test_a_quantised_model_has_no_gradient_and_that_is_said():
    result = uiat.evaluate(quantised(), X, Y, threat=Linf(0.1), attacks=["pgd-5", "noise-5"])
    assert set(result.accuracy) == {"clean", "noise-5", "worst"}
    assert any(warning.startswith("not run: pgd-5") for warning in result.warnings)
    with pytest.raises(UserError, match="no gradient with respect to its input"):
        ATTACK(quantised(), X, Y)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("frozen script", "no parameters: there is nothing to train"),
        ("exported", "exported program, which has no train mode"),
        ("quantised", "no gradient"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(form, says):
    with pytest.raises(UserError, match=says):
        uiat.fit(FORMS[form](), (X, Y), objective=PGDAT(attack=ATTACK), batch_size=8, progress=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_weights_of_another_dtype_than_the_images_are_named(dtype):
    model = plain().to(dtype)
    calls = [
        lambda: judge(model, ["fgsm"]),
        lambda: ATTACK(model, X, Y),
        lambda: uiat.fit(model, (X, Y), objective=PGDAT(attack=ATTACK), progress=False),
    ]
    for call in calls:
        with pytest.raises(UserError, match=f"weights of {dtype}, but the images are torch.float32"):
            call()
