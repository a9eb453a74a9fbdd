"""Published numbers stand beside those of the same experiment, and of no other."""

from pathlib import Path

import pytest
import yaml

from support.run_folders import ACCURACY, groups_of, pages, write_run, write_settings
from uiat import recipes
from uiat.config.yaml_io import to_dict
from uiat.report.published import PUBLISHED, compare, is_as_published
from uiat.runs.run_files import RunFiles


def test_a_published_number_stands_beside_each(tmp_path):
    results = [0.509, 0.485, 0.40]
    made = [write_run(tmp_path / str(a), accuracy=ACCURACY | {"autoattack": a, "worst": a}) for a in results]
    alone = [compare(groups_of([run])[0])["autoattack"].assessment for run in made]
    assert alone == ["suspicious: more than published", "agrees", "less than published"]
    html, text = pages(made[:1], tmp_path / "report.html")
    line = "autoattack: yours 50.9, published 48.3–48.7 (tolerance 1.0; MAIR's benchmark table"
    assert line in text
    assert "published 48.3–48.7: suspicious" in html


def test_fewer_images_widen_the_tolerance(tmp_path):
    run = write_run(tmp_path / "a", accuracy=ACCURACY | {"autoattack": 0.509}, n=1000)
    one = compare(groups_of([run])[0])["autoattack"]
    assert one.assessment == "agrees"
    assert one.tolerance == pytest.approx(1 + 3.1, abs=0.1)


# UIAT that is not the instance-wise one of which there are published numbers.
VARIANTS = (
    {"inverse": {"kind": "universal", "epoch": None}},
    {"inverse": {"kind": "universal", "epoch": 5}},
    {"inverse": {"kind": "instance"}, "attack": {"steps": 1, "start": "uniform", "bounded": False}},
)


@pytest.mark.parametrize(
    "changed",
    [
        {"threat": "Linf:0.1"},
        {"data": "svhn"},
        {"model": {"name": "small-cnn"}},
        {"data_": {"name": "cifar10", "subset": 20_000}},
        {"objective": {"name": "uiat"}},
        {"model": {"name": "resnet18", "width": 32}},
        {"model": {"name": "resnet18", "activation": "silu"}},
        {"objective": {"name": "pgd-at", "attack": {"steps": 0}}, "optimisation": {"replays": 4}},
        {"objective": {"name": "pgd-at", "attack": {"steps": 10}, "label_smoothing": 0.1}},
        {"objective": {"name": "pgd-at", "attack": {"steps": 10}, "alignment": 0.2}},
        {"objective": {"name": "pgd-at", "attack": {"threat": {"norm": "Linf", "epsilon": "4/255"}}}},
        {"objective": {"name": "pgd-at", "attack": {"threat": {"norm": "L2", "epsilon": 0.5}}}},
        {"objective": {"name": "trades", "weight": 1.0}},
        {"objective": {"name": "trades", "attack": {"steps": 1}}},
        {"optimisation": {"average": "ema"}},
        {"optimisation": {"average": "swa", "awp": 0.005}},
        *({"model": {"name": "wrn-28-10"}, "objective": {"name": "uiat", **objective}} for objective in VARIANTS),
    ],
)
def test_nothing_is_compared_with_what_it_is_not(tmp_path, changed):
    changed = {key.rstrip("_"): value for key, value in changed.items()}
    config = {"data": changed.pop("data")} if isinstance(changed.get("data"), dict) else {}
    run = write_run(tmp_path / "a", accuracy=ACCURACY, **changed)
    if config:
        write_settings(run, yaml.safe_load((run / "config.yaml").read_text()) | config)
    assert compare(groups_of([run])[0]) == {}


def test_instance_wise_is_compared_with_what_is_instance_wise(tmp_path):
    objective = {"name": "uiat", "weight": 3.5, "inverse": {"kind": "instance"}, "attack": {"steps": 10}}
    run = write_run(tmp_path / "a", model={"name": "wrn-28-10"}, objective=objective, accuracy=ACCURACY)
    assert compare(groups_of([run])[0])["autoattack"].short == "published 52.2: less"


def test_the_published_numbers_are_possible():
    for one in PUBLISHED:
        assert 20 < one.low <= one.high < 95
    keys = [(model, one.method, one.attack, one.data) for one in PUBLISHED for model in one.models]
    assert len(keys) == len(set(keys))
    for name in ("pgd-at", "trades", "mart", "iat"):
        for kind in ("resnet18", "wrn28"):
            config = to_dict(recipes.get(f"cifar10-{kind}-{name}"))
            assert is_as_published(RunFiles(Path("a"), config)), name


@pytest.mark.parametrize(
    "change", [{"data": {"extra": "a.npz"}}, {"model": {"weights": "a"}}, {"model": {"pretrained": True}}]
)
def test_runs_that_have_learnt_from_further_images_are_another_experiment(change):
    assert is_as_published(RunFiles(Path("a"), {}))
    assert not is_as_published(RunFiles(Path("a"), change))
