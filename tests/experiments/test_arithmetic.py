"""The arithmetic of a sweep: settled once, written down, and never averaged over."""

import json
from pathlib import Path

import pytest

import uiat
from support.sweeps import SMALL
from uiat import Compute, Run, UserError
from uiat.analyse.study import StudyRun, check_same_arithmetic
from uiat.cli.sweep import _find_mixtures
from uiat.experiments import GridRun, sweep
from uiat.experiments.arithmetic import describe_arithmetic, find_mixture
from uiat.experiments.grid import mean_over_seeds
from uiat.report.groups import group_runs
from uiat.report.summary import find_warnings
from uiat.runs.run_files import RunFiles
from uiat.training import autotune

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def moody(monkeypatch):
    """A machine whose measurement comes out otherwise each time; the list of its answers."""
    answers = []

    def measure(*args, **options):
        answers.append(not answers or not answers[-1])
        return answers[-1]

    monkeypatch.setattr(autotune, "is_bf16_faster", measure)
    monkeypatch.setattr(autotune, "is_compiling_faster", lambda *args, **options: False)
    return answers


AUTO = {"compute.precision": "auto", "compute.compile": "auto"}


def precisions(folder):
    configs = sorted(folder.glob("*/config.yaml"))
    return [uiat.load_config(path.read_text()).compute.precision for path in configs]


@pytest.mark.slow
def test_a_sweep_settles_it_once_and_writes_it_down(moody, tmp_path):
    options = {"settings": SMALL | AUTO | {"objective.weight": [1, 2]}, "seeds": [0, 1], "folder": tmp_path}
    runs = sweep("digits-uiat", **options)
    assert [run.status for run in runs] == ["done"] * 4
    assert precisions(tmp_path) == ["bf16"] * 4
    assert moody == [True]
    rows = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [row["arithmetic"] for row in rows] == ["bf16"] * 4
    more = sweep("digits-uiat", **options | {"seeds": [0, 1, 2]})  # resumed, with more seeds
    assert [run.status for run in more] == ["done"] * 6
    assert precisions(tmp_path) == ["bf16"] * 6
    assert moody == [True]


def test_what_is_set_stays_as_it_is(moody, tmp_path):
    settings = SMALL | {"compute.precision": ["auto", "fp32"]}
    sweep("digits-uiat", settings=settings, seeds=[0, 1], folder=tmp_path, evaluated=False)
    assert sorted(precisions(tmp_path)) == ["bf16", "bf16", "fp32", "fp32"]


def test_runs_that_were_trained_in_different_arithmetic_are_not_averaged(moody, tmp_path):
    for seed in (0, 1):  # as of two sweeps, each of which has measured
        sweep("digits-uiat", settings=SMALL | AUTO, seeds=[seed], folder=tmp_path / str(seed))
    (run,) = (tmp_path / "1").glob("*/config.yaml")
    run.parent.rename(tmp_path / "0" / run.parent.name)
    runs = sweep("digits-uiat", settings=SMALL | AUTO, seeds=[0, 1], folder=tmp_path / "0")
    assert [run.arithmetic for run in runs] == ["bf16", "fp32"]
    ((_, done, values),) = mean_over_seeds(runs)
    assert (done, values) == (2, {})
    assert _find_mixtures(runs) == [
        "the runs: not averaged, since their arithmetic differs: bf16 (seed=0), fp32 (seed=1); train them again in one "
        "of them"
    ]


@pytest.mark.parametrize(
    ("compute", "text"),
    [
        (Compute(), "fp32"),
        (Compute(precision="bf16"), "bf16"),
        (Compute(precision="bf16", compile=True), "bf16, compiled"),
        (Compute(precision="bf16", compile=True, plain=True), "fp32"),
        (Compute(precision="auto", compile="auto"), "fp32"),
    ],
)
def test_words(compute, text):
    assert describe_arithmetic(Run(compute=compute)) == text


def test_studies_refuse_to_average_over_it():
    one, two, other = (
        StudyRun(name, Path(name), Run(seed=seed, compute=Compute(precision=precision)))
        for name, seed, precision in (("a", 0, "fp32"), ("b", 1, "fp32"), ("c", 2, "bf16"))
    )
    check_same_arithmetic([[one, two], [other]])
    with pytest.raises(UserError, match=r"^a, b and c are not averaged, .*: fp32 \(a, b\), bf16 \(c\); train"):
        check_same_arithmetic([[one, two, other]])


def test_a_report_does_not_average_over_it_and_says_so():
    runs = [
        RunFiles(Path(f"runs/{p}"), {"name": "a", "seed": s, "compute": {"precision": p}})
        for s, p in enumerate(("fp32", "bf16"))
    ]
    groups = group_runs(runs)
    assert [len(group.runs) for group in groups] == [1, 1]
    (said,) = (text for text in find_warnings(groups) if "arithmetic" in text)
    assert "fp32 (a, precision=fp32); bf16 (a, precision=bf16)" in said


def test_one_arithmetic_is_no_mixture():
    assert find_mixture({}) == find_mixture({"a": "fp32"}) == find_mixture({"a": "bf16", "b": "bf16"}) == ""
    grid = [
        GridRun({}, Run(seed=s), Path("a"), "done", {"accuracy": {"clean": 0.5}}, arithmetic="fp32") for s in (0, 1)
    ]
    assert mean_over_seeds(grid)[0][2] == {"clean": (0.5, 0.0)}
