"""Runs that were trained once, for all tests that read run folders."""

import json

import jaxtyping
import pytest

import uiat
from support import tiny
from uiat import UIAT, UniversalInverse
from uiat.experiments import EvaluateOptions, evaluate
from uiat.experiments.target import load_target

ATTACK = tiny.attack()
METHODS = {
    "uiat": UIAT(attack=ATTACK, inverse=UniversalInverse(radius=0.1, step_size=0.05)),
    "one-off": UIAT(attack=ATTACK, inverse=UniversalInverse(radius=0.1, step_size=0.05, epoch=1)),
    "pgd-at": uiat.PGDAT(attack=ATTACK),
}


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory):
    """The folder of three runs of two epochs, named as in METHODS, with a made-up result; nobody changes them."""
    folder = tmp_path_factory.mktemp("trained")
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        for name, objective in METHODS.items():
            uiat.train(tiny.run(objective=objective), run_dir=folder / name)
            accuracy = {"clean": 0.5, "pgd-20": 0.25, "worst": 0.25 if name == "uiat" else 0.125}
            record = {"accuracy": accuracy, "n": 536, "threat": "Linf:0.2"}
            (folder / name / "evaluation.json").write_text(json.dumps(record))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return folder


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory):
    """The folder of a run of two epochs on digits, evaluated with FGSM on 60 images; nobody changes it."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        uiat.train(tiny.run(objective=METHODS["uiat"]), run_dir=folder)
        options = EvaluateOptions(run=folder, attacks="fgsm", n=60)
        evaluate.run(options, load_target(options))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return folder
