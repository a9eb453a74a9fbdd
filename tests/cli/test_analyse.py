"""`uiat analyse`: what it prints, and what it refuses in one line."""

import json
import shutil

import pytest

from support.run_folders import as_version_1
from support.trained import METHODS
from uiat import analyse

MISTAKES = {
    "study": (["strenght", "uiat"], "unknown study 'strenght'; did you mean 'strength'?"),
    "no run": (["strength"], "the study strength needs one or more RUN folders"),
    "no run of an ablation": (["ablation"], "needs one or more RUN folders, or --train RECIPE"),
    "not a run": (["strength", "nowhere"], "is not a run folder: it has no config.yaml"),
    "twice": (["strength", "uiat", "uiat"], "is given twice"),
    "n": (["strength", "uiat", "--n", "540"], "n 540 is more than the 539 test images of uiat"),
    "n held out": (["one-off", "one-off", "-n", "41"], "n 41 is more than the 40 held-out images"),
    "n of what is to be trained": (["ablation", "--train", "digits-uiat", "-n", "151"], "n 151 is more than the 150"),
    "attack on what is to be trained": (["ablation", "--train", "digits-uiat", "--attack", "fab"], "needs an attack"),
    "attack": (["strength", "uiat", "--attack", "pdg-20"], "did you mean 'pgd-K'"),
    "attack that searches": (["misaligned", "uiat", "--attack", "square"], "needs an attack such as pgd-20"),
    "attack that cannot help": (["confidence-gap", "uiat", "--attack", "apgd-ce"], "needs an attack such as pgd-20"),
    "threat": (["strength", "uiat", "--threat", "Linf:8"], 'did you mean "8/255"'),
    "epsilons": (["strength", "uiat", "--epsilons", "0,8/255,4/255"], "epsilons must ascend"),
    "weights": (["strength", "uiat", "--which", "bset"], "unknown weights 'bset'; did you mean 'best'"),
    "no perturbations": (["inverse-gallery", "pgd-at"], "has no universal perturbations"),
    "not one-off": (["one-off", "uiat"], "needs a run with objective.inverse.epoch set"),
    "train what": (["strength", "--train", "digits-uiat"], "only the study ablation trains a recipe"),
    "train and runs": (["ablation", "uiat", "--train", "digits-uiat"], "leave one out"),
    "recipe": (["ablation", "--train", "digits-uait"], "unknown recipe 'digits-uait'; did you mean 'digits-uiat'"),
    "another method": (["ablation", "--train", "digits-trades"], "and digits-trades is trades"),
    "seeds": (["ablation", "--train", "digits-uiat", "--seeds", "0;1"], "--seeds are whole numbers"),
    "set": (["ablation", "--train", "digits-uiat", "--set", "objective.wieght=1"], "did you mean 'objective.weight'"),
    "set without a value": (["ablation", "--train", "digits-uiat", "--set", "seed"], "--set takes FIELD=VALUE"),
    "attack that is not read": (["overfitting", "uiat", "--attack", "pgd-1"], "does not read attack, but n, seed and"),
    "default that is not read": (["alignment", "uiat", "--attack", "pgd-20"], "does not read attack"),
    "seeds of runs": (["strength", "uiat", "--seeds", "3"], "--set, --seeds and --runs are for ablation --train"),
    "set of runs": (["ablation", "uiat", "--set", "objective.weight=1"], "runs that are given are as they are"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(words, says, ask, trained_runs, tmp_path):
    study, *rest = words
    rest = [trained_runs / word if word in METHODS else word for word in rest]
    code, _, err = ask("analyse", study, *rest, "--out", tmp_path / "out")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert says in err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_what_it_writes(ask, trained_runs, tmp_path):
    code, out, err = ask("analyse", "cost", trained_runs / "uiat", trained_runs / "pgd-at", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert f"written: {tmp_path / 'cost.json'}" in out
    assert json.loads((tmp_path / "cost.json").read_text())["paragraph"] in out
    assert " MB kept" in out


def test_runs_that_lack_what_a_study_needs(ask, trained_runs, tmp_path):
    run = as_version_1(shutil.copytree(trained_runs / "uiat", tmp_path / "run"))

    def says(study):
        code, _, err = ask("analyse", study, run, "--out", tmp_path / "out")
        assert code == 2
        assert len(err.splitlines()) == 1
        return err

    (run / "evaluation.json").unlink()
    assert f"has no evaluation.json: run `uiat evaluate {run}` first" in says("cost")
    (run / "evaluation.json").write_text('{"accuracy": {"clean": "many"}}')
    assert "is damaged: evaluate the run again" in says("cost")
    metrics = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(metrics[20:])
    for study in ("overfitting", "ablation"):
        assert "metrics.jsonl is damaged in line 1" in says(study)
    (run / "metrics.jsonl").unlink()
    assert "has no metrics.jsonl: no epoch of it has ended yet" in says("overfitting")
    (run / "best.safetensors").write_bytes(b"no weights")
    assert "is not a readable safetensors file" in says("strength")


def test_the_help_lists_every_study_with_defaults_and_units(ask):
    code, out, _ = ask("analyse", "--help")
    words = "".join(out.split())  # lines are broken at hyphens too
    assert code == 0
    for study in analyse.STUDIES.values():
        assert f"{study.name}: {study.about}".replace(" ", "") in words
    for text in ("pgd-20", "in units of the image range [0, 1]", "[default: 1000, or all]", "[default: analysis]"):
        assert text.replace(" ", "") in words
