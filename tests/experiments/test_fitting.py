"""Which images the command fits universal perturbations on."""

import json

import pytest

from uiat import Linf, UserError
from uiat.experiments import fitting
from uiat.experiments.extras import plan_extras
from uiat.experiments.options import EvaluateOptions
from uiat.runs.settings import read_evaluated


def test_a_run_is_fitted_on_what_it_was_trained_on_and_others_on_the_training_split(trained, monkeypatch):
    run, _ = read_evaluated(trained)
    of_run = fitting.images_to_fit(EvaluateOptions(run=trained), ["uap-2"], Linf(0.1), run)
    assert len(of_run.y) == run.data.subset or 1258 - run.data.validation
    monkeypatch.setattr(fitting, "MOST", 50)
    of_data = fitting.images_to_fit(EvaluateOptions(model="small-cnn", data="digits"), ["uap-2"], Linf(0.1))
    assert (len(of_data.y), of_data.x.shape[1:]) == (50, of_run.x.shape[1:])
    assert fitting.images_to_fit(EvaluateOptions(run=trained), ["pgd-2"], Linf(0.1), run) is None


def test_the_command_fits_on_training_images(ask, trained, tmp_path):
    words = ["--attacks", "uap-class-1,fgsm", "--n", 40, "--out", tmp_path / "a"]
    assert ask("evaluate", trained, *words)[::2] == (0, "")
    found = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert list(found["accuracy"]) == ["clean", "uap-class-1", "fgsm", "worst"]
    assert found["passes"]["uap-class-1"]["backward"] > 40
    assert "fitting images" in found["sums"]


@pytest.mark.parametrize(
    "options", [{"epsilons": "0,0.1", "sweep_attack": "uap-2"}, {"norms": "L2:1", "norms_attack": "uap-2"}]
)
def test_extra_measurements_do_not_fit(options):
    with pytest.raises(UserError, match=f"--{next(iter(options))}: uap-2 is fitted before it is measured"):
        plan_extras(threat=Linf(0.1), data="digits", **options)
