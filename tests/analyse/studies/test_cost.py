"""Passes of a step, beside accuracy."""

from dataclasses import replace

import pytest
import torch

import uiat
from uiat import PGDAT, UIAT, InstanceInverse, Linf, Mart, Run, Standard, Trades, UniversalInverse, analyse, models
from uiat.analyse.studies import cost
from uiat.training.pass_count import step_cost

SHAPE = (1, 8, 8)
PGD = uiat.PGD()  # ten steps


@pytest.fixture(scope="module")
def model():
    return models.build("small-cnn", num_classes=10, image_shape=SHAPE, width=4)


@pytest.mark.parametrize(
    ("objective", "passes"),
    [
        (Standard(), 3),
        (PGDAT(attack=PGD), 23),
        (UIAT(attack=PGD), 28),
        (UIAT(attack=PGD, inverse_gradient=False), 25),
        (UIAT(attack=PGD, momentum="example"), 28),  # what it remembers comes from the pass that refines z
        (UIAT(attack=PGD, inverse=InstanceInverse(steps=10)), 46),
        (UIAT(attack=PGD, inverse=UniversalInverse(regulariser="feature")), 29),
        (UIAT(attack=uiat.FGSMRS(threat=Linf("8/255"))), 10),
        (Mart(attack=PGD), 26),
        (Trades(attack=replace(PGD, loss="kl", start="gaussian")), 27),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_passes_of_a_step(objective, passes, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert step_cost(Run(objective=objective), model, image_shape=SHAPE, classes=10).units == passes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_one_off_run_costs_what_its_epochs_cost_on_average(model):
    run = Run(objective=UIAT(attack=PGD, inverse=UniversalInverse(epoch=2)), optimisation=uiat.Optimisation(epochs=10))
    # Two epochs of the base method alone, one that refines, seven with a frozen z.
    expected = (2 * 23 + 28 + 7 * 26) / 10
    assert step_cost(run, model, image_shape=SHAPE, classes=10).units == pytest.approx(expected)


def test_weight_perturbation_is_counted_from_its_epoch(model):
    settings = uiat.Optimisation(epochs=4, awp=0.005, awp_from_epoch=2)
    run = Run(objective=PGDAT(attack=PGD), optimisation=settings)
    assert step_cost(run, model, image_shape=SHAPE, classes=10).units == pytest.approx(23 + 3 / 2)


def test_cost_names_those_that_nobody_beats():
    common = {"n": 539, "threat": "Linf:0.2", "attacks": ["pgd-20"], "hardware": "one", "method": "pgd-at"}
    rows = [
        {"run": "cheap", "passes": 20.0, "worst": 0.5, **common},
        {"run": "good", "passes": 25.0, "worst": 0.6, **common},
        {"run": "bad", "passes": 26.0, "worst": 0.55, **common},
    ]
    said = cost.sentences({"rows": rows})
    best = "cheap (20.0 passes, 50.0 %) and good (25.0 passes, 60.0 %)"
    assert said[0] == f"No other run is both cheaper and more robust than {best}."
    assert "good takes 1.25 times the passes of cheap and is +10.0 points from it in the worst case." in said
    rows[0]["n"] = 100
    assert cost.sentences({"rows": rows})[0].startswith("Careful: the runs differ in n")


def test_cost_reads_no_data_set(trained_runs, monkeypatch):
    def never(*_, **__):
        raise AssertionError("asked for data")

    monkeypatch.setattr("uiat.analyse.study.Context._open_split", never)
    monkeypatch.setattr("uiat.training.setup.open_data", never)
    (row, _) = analyse.run("cost", [trained_runs / "uiat", trained_runs / "pgd-at"]).data["rows"]
    assert row["passes"] == 12.0  # two steps, two training passes, and one that refines z
