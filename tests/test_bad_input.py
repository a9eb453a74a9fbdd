"""Mistakes of users in training data, models, images, radii and options: one clear sentence, and nothing lost."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

import uiat
from support import tiny
from uiat import PGD, PGDAT, UIAT, Linf, Optimisation, UniversalInverse, UserError

pytestmark = pytest.mark.usefixtures("unchecked")
X, Y = tiny.tensors()
NAN = X.clone()
NAN[3, 0, 2, 2] = math.nan
BYTES = (X * 255).to(torch.uint8)


class Endless(IterableDataset):
    def __iter__(self):
        yield X[0], 0


class EndsEarly(TensorDataset):
    def __getitem__(self, i):
        if i == 5:
            raise IndexError("no more")
        return super().__getitem__(i)


def fit(data=(X, Y), model=None, **settings):
    settings = {"batch_size": 16, "objective": PGDAT(attack=tiny.attack()), **settings}
    settings.setdefault("optimisation", Optimisation(epochs=1))
    return uiat.fit(model or tiny.linear(), data, **settings)


def one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((NAN, Y), "NaN"),
        ((X * 255, Y), "divide by 255"),
        ((X * 2 - 1, Y), "normalisation"),
        ((X, Y.float()), "int64"),
        ((X, Y[:-1]), "one for each image"),
        ((X, Y[:, None]), "one for each image"),
        ((X, Y - 1), "labels run from -1"),
        ((X, Y * 2), "no image of class"),
        ((X[:0], Y[:0]), "empty"),
        ((X[:, 0], Y), r"shape \(n, channels, height, width\)"),
        ((X, torch.zeros_like(Y)), "one class only"),
        ((X[:4], Y[:4]), "one image only"),
        (TensorDataset(X[:0], Y[:0]), "empty"),
        (TensorDataset(NAN, Y), "NaN"),
        (TensorDataset(X), r"pair \(image, label\)"),
        (Endless(), "length"),
        (EndsEarly(X, Y), f"the dataset has a length of {len(X)}, but ends after 5 images"),
        (X, "."),
        ([X, Y], "."),
        ("digits", "."),
        (None, "."),
    ],
)
def test_training_data(data, message):
    with pytest.raises(UserError, match=message) as caught:
        fit(data)
    one_sentence(caught)


def test_a_batch_larger_than_the_set():
    with pytest.raises(UserError, match="batch size 61 is larger than the set of 60 images") as caught:
        fit(batch_size=61)
    one_sentence(caught)
    with pytest.raises(UserError, match="batch_size"):
        fit(batch_size=0)


class Wraps(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.inner, self.change = tiny.linear(), change

    def forward(self, x):
        return self.change(self.inner(x))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Wraps(lambda s: s.softmax(dim=1)), "returns probabilities; return logits"),
        (Wraps(lambda s: (s, s)), "returns a tuple"),
        (Wraps(lambda s: {"scores": s}), 'under the key "logits"'),
        (Wraps(lambda s: s.numpy() if not s.requires_grad else s), "returns a ndarray"),
        (Wraps(lambda s: s * math.nan), "NaN or infinite"),
        (tiny.linear(classes=3), "has 3 classes and the data 4"),
        (tiny.linear(classes=5), "has 5 classes and the data 4"),
        (nn.Flatten(), "no parameters"),
        (tiny.linear().requires_grad_(False), "no parameter that requires a gradient"),
    ],
)
def test_models(model, message):
    with pytest.raises(UserError, match=message) as caught:
        fit(model=model)
    one_sentence(caught)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X * 255, Y, "divide by 255"),
        (BYTES, Y, "divide by 255"),
        (X - 0.5, Y, "unnormalised"),
        (NAN, Y, "not finite"),
        (X, Y.float(), "int64"),
        (X, Y[:3], "one for each image"),
        (X, Y - 1, "run from -1"),
        (X[:0], Y[:0], "empty"),
    ],
)
def test_attacks_and_steps(x, y, message):
    model = tiny.linear()
    with pytest.raises(UserError, match=message) as caught:
        PGD(threat=Linf(0.1), step_size=0.05, steps=1)(model, x, y)
    one_sentence(caught)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = uiat.make_step(model, UIAT(), optimizer, num_classes=4, image_shape=(1, 8, 8))
    before = model[1].weight.clone()
    with pytest.raises(UserError, match=message):
        step(uiat.Batch(x, y, torch.arange(len(x))), epoch=0)
    assert torch.equal(model[1].weight, before)


NO_NUMBERS = [-0.1, math.nan, math.inf, "eight", "8/0", "8/255/2", "", None]
RADII = [
    *((Linf, value) for value in (*NO_NUMBERS, 0, 8, "300/255")),
    *((lambda e: UniversalInverse(radius=e), value) for value in (*NO_NUMBERS, 0)),
    *((lambda e: PGD(step_size=e), value) for value in (*NO_NUMBERS, 2)),
]


@pytest.mark.parametrize(("make", "value"), RADII)
def test_radii(make, value):
    with pytest.raises(UserError) as caught:
        make(value)
    one_sentence(caught)


def test_pixels_for_an_epsilon_say_what_was_meant():
    with pytest.raises(UserError, match="8/255"):
        Linf(8)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimisation.epoch", "3", "did you mean 'optimisation.epochs'"),
        ("optimiser.epochs", "3", "unknown field"),
        ("optimisation.epochs", "many", "optimisation.epochs must be a whole number"),
        ("optimisation.epochs", "-1", "at least 1"),
        ("optimisation.schedule", "cosin", "did you mean 'cosine'"),
        ("objective.name", "uait", "did you mean 'uiat'"),
        ("objective.inverse.kind", "univers", "did you mean 'universal'"),
        ("objective.attack.threat.norm", "L3", "unknown"),
        ("data.augment", "flip", "did you mean 'crop-flip'"),
        ("seed", "1.5", "seed must be a whole number"),
    ],
)
def test_settings(field, value, message):
    with pytest.raises(UserError, match=message) as caught:
        uiat.override(uiat.recipes.get("digits-uiat"), [(field, value)])
    one_sentence(caught)


def test_per_example_momentum_needs_to_know_how_many_examples():
    model = tiny.linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="num_examples"):
        uiat.make_step(model, UIAT(momentum="example"), optimizer, num_classes=4, image_shape=(1, 8, 8))


def test_a_warm_start_that_does_not_fit(tmp_path):
    uiat.UniversalPerturbation(torch.zeros(2, 3, 8, 8), Linf(0.1)).save(tmp_path / "z.safetensors")
    inverse = UniversalInverse(warm_start=str(tmp_path / "z.safetensors"))
    with pytest.raises(UserError, match=r"has shape \(2, 3, 8, 8\), this run needs \(4, 1, 8, 8\)"):
        fit(objective=UIAT(inverse=inverse))


def test_a_mistake_costs_nothing(tmp_path):
    model = tiny.linear()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError):
        fit((X * 255, Y), model=model, run_dir=tmp_path / "run")
    with pytest.raises(UserError):
        fit(batch_size=99, model=model, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    fit(model=model, run_dir=tmp_path / "run")
