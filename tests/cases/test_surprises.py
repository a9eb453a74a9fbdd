"""What a first-time user meets without a word: which images are taken, what is said, what is printed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import uiat
from support.commands import ask, result  # noqa: F401 - a fixture
from uiat.analyse.result import Result
from uiat.analyse.study import Context, StudyOptions, StudyRun
from uiat.config.schema import Data, Run
from uiat.evaluation.corruptions import corruption_accuracy
from uiat.evaluation.robustbench import evaluate_zoo
from uiat.evaluation.unseen import evaluate_unseen
from uiat.experiments import GridRun, finish
from uiat.experiments.images import evaluated_images
from uiat.experiments.predictions import predict
from uiat.report.groups import group_runs
from uiat.runs.run_files import RunFiles, read_files
from uiat.system.atomic_files import write_json

Image = pytest.importorskip("PIL.Image")

# Right about every class but the first, whose images it takes for the second.
BRIGHTNESS = """
import torch
from torch import nn

class Brightness(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("level", (30.0 * torch.arange(classes) + 10) / 255)

    def forward(self, x):
        logits = -self.scale * (100 * (x.mean((1, 2, 3))[:, None] - self.level)) ** 2
        return torch.cat([logits[:, :1] - 1000, logits[:, 1:]], dim=1)

def net(*, num_classes, image_shape):
    return Brightness(num_classes)
"""


def folder(path: Path, *, classes: int = 3, each: int = 20, names: str = "abcdefgh") -> str:
    """Write an image folder of grey images, the brighter the later the class; return its name as a data set."""
    for part in ("train", "test"):
        for label in range(classes):
            (path / part / names[label]).mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", (8, 8), (30 * label + 10,) * 3).save(path / part / names[label] / f"{i}.png")
    return f"imagefolder:{path}"


@pytest.fixture
def user(tmp_path, monkeypatch):
    """The options of a model that knows the classes of an image folder, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(BRIGHTNESS)
    return ["evaluate", "--model", "mine.py:net", "--data", folder(Path("images")), "--threat", "Linf:1/255"]


QUICK = ["optimisation.epochs=1", "objective.attack.steps=1", "validation.steps=1"]

# Some images of a folder


def test_some_images_of_a_folder_are_of_all_classes_and_named(ask, user):  # noqa: F811
    code, out, err = ask(
        *user, "--attacks", "fgsm", "-n", 12, "--out", "a", "--epsilons", "0,1/255", "--norms", "L2:0.1"
    )
    assert (code, err) == (0, "")
    assert "on 12 test images of imagefolder:images" in out
    assert "the images are a stratified sample of 60, seed 0" in out
    found = result(Path("a"))
    assert found["per_class"]["clean"] == [0.0, 1.0, 1.0]
    assert found["accuracy"]["clean"] == pytest.approx(8 / 12)
    assert found["sweep"]["accuracy"][0] == pytest.approx(8 / 12)
    assert set(found["unseen"]["accuracy"].values()) <= {8 / 12}
    assert found["sample"]["rule"] == "stratified"
    assert sorted(index // 20 for index in found["sample"]["index"]) == [0] * 4 + [1] * 4 + [2] * 4


def test_classes_without_an_image_are_a_warning_by_name(ask, user):  # noqa: F811
    _, out, _ = ask(*user, "--attacks", "fgsm", "-n", 2, "--out", "a")
    present = {index // 20 for index in result(Path("a"))["sample"]["index"]}
    (absent,) = {0, 1, 2} - present
    assert f"warning: no image of class {'abc'[absent]}, of 3: the accuracies say nothing of them" in out


def test_all_images_of_a_folder_stay_in_their_order(ask, user):  # noqa: F811
    _, out, _ = ask(*user, "--attacks", "clean", "--out", "a")
    found = result(Path("a"))
    assert found["sample"] == {"rule": "all", "of": 60}
    assert found["broken_by"] == ["clean"] * 20 + [""] * 40
    assert "sample" not in out


def test_the_first_images_of_a_benchmark_stay_the_rule():
    images = evaluated_images(Run(), n=7)
    assert torch.equal(images.images, uiat.data.load("digits", "test").images[:7])


def study_images(data: str, split: str, n: int) -> torch.Tensor:
    run = StudyRun("a", Path("a"), Run(data=Data(name=data, image_size=8, validation=18)))
    context = Context([run], StudyOptions(n=n))
    return context.load_images(run, split)[1]


@pytest.mark.parametrize("split", ["test", "train", "held-out"])
def test_studies_take_images_of_all_classes(tmp_path, split):
    assert torch.bincount(study_images(folder(tmp_path / "images"), split, 9)).tolist() == [3, 3, 3]


def test_a_zoo_takes_images_of_all_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(BRIGHTNESS)
    entry = {"Mine": {"model": "mine.py:net", "data": folder(tmp_path / "images"), "threat": "Linf:1/255"}}
    assert evaluate_zoo(entry, "Mine", n=12, attacks=["fgsm"]).per_class["clean"] == [0.0, 1.0, 1.0]


def test_parts_of_a_folder_to_train_and_validate_on_are_of_all_classes(tmp_path):
    data = uiat.data.open_data(folder(tmp_path / "images"), "train")
    rest, held_out, _ = uiat.data.split_validation(data, size=12)
    assert torch.bincount(held_out.labels).tolist() == [4, 4, 4]
    assert torch.bincount(uiat.data.stratified_subset(rest, 9).labels).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("change", "believed"),
    [
        ({}, True),
        ({"sample": None}, False),  # of version 0.1: of the first class alone
        ({"sample": None, "data": "digits"}, True),
        ({"sample": None, "n": 11}, True),  # there are no more
    ],
)
def test_a_sweep_does_not_take_a_result_on_the_first_classes_alone(tmp_path, change, believed):
    accuracy = {"clean": 0.0, "fgsm": 0.0, "worst": 0.0}  # of any number of images
    record = {"data": "imagefolder:x", "n": 12, "threat": "Linf:0.2", "accuracy": accuracy, "seconds": {}}
    record |= {"sample": {"rule": "stratified"}} | change
    write_json(tmp_path / "evaluation.json", {key: value for key, value in record.items() if value is not None})
    asked = uiat.Evaluation(attacks=("fgsm",), n=12, threat=uiat.Linf(0.2))
    settings = replace(Run(), evaluation=asked, data=uiat.Data(name=record["data"]))
    run = GridRun({}, settings, tmp_path)
    assert (finish.read_result(run) is not None) == believed


def test_a_report_does_not_average_over_other_images():
    record = {"accuracy": {"clean": 0.5}, "n": 2, "data": "imagefolder:x"}
    runs = [
        RunFiles(Path(f"runs/{seed}"), {"name": "a", "seed": seed}, evaluation=record | {"sample": {"index": index}})
        for seed, index in enumerate(([0, 1], [0, 1], [0, 2]))
    ]
    assert [len(group.runs) for group in group_runs(runs)] == [2, 1]


# What is printed

X, Y = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
MARKUP = "<script>alert(1)</script>"


def linear() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))


def printed() -> dict[str, object]:
    """Everything that the public functions return, of forty images."""
    objective = uiat.UIAT(attack=uiat.PGD(threat=uiat.Linf(0.1), step_size=0.1, steps=1))
    options = {"optimisation": uiat.Optimisation(epochs=1), "batch_size": 16, "progress": False}
    trained = uiat.fit(linear(), (X, Y), objective=objective, **options)
    options = {"threat": uiat.Linf(0.1), "attacks": ["fgsm"]}
    batch = uiat.Batch(X, Y, torch.arange(40))
    state = objective.init(num_classes=2, image_shape=(1, 8, 8))
    data = uiat.data.from_tensors(X, Y, name="mine")
    return {
        "evaluation": uiat.evaluate(trained.model, X, Y, **options),
        "radii": uiat.radius_sweep(trained.model, X, Y, threat=uiat.Linf(0.1), epsilons=[0, 0.1], attack="fgsm"),
        "unseen": evaluate_unseen(trained.model, X, Y, threats=["L2:0.5"], attack="fgsm"),
        "corruptions": corruption_accuracy(trained.model, X, Y, kinds=["contrast"]),
        "trained": trained,
        "inverse": trained.inverse,
        "batch": batch,
        "examples": objective.perturb(trained.model, batch, state, epoch=0),
        "images": data,
        "subsample": uiat.data.take_images(data, 5)[1],
        "study": Result("strength", {"curves": [0.5] * 999}, "The curves do not cross."),
        "run": GridRun({}, Run(), Path("runs/a"), "done", {"accuracy": {"clean": 0.5}, "broken_by": ["x"] * 999}),
    }


def test_no_result_prints_raw_numbers():
    for name, value in printed().items():
        text = repr(value)
        assert len(text) < 900, name
        assert "tensor(" not in text, name
        assert str(value) == text, name


def test_an_evaluation_prints_a_short_table_and_its_verdict():
    y = torch.cat([Y[:39], torch.tensor([3])])
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    result = uiat.evaluate(model, X, y, threat=uiat.Linf("8/255"), attacks=["fgsm", "pgd-2"])
    title, heading, *rows = repr(result).splitlines()
    assert title == "40 images, threat model Linf 8/255, seed 0"
    assert heading.split() == ["attack", "accuracy", "95", "%", "interval"]
    assert [row.split()[0] for row in rows[:4]] == ["clean", "fgsm", "pgd-2", "worst"]
    assert [float(row.split()[1]) for row in rows[:4]] == [round(100 * value, 2) for value in result.accuracy.values()]
    assert rows[4:] == ["no image of class 2, 4, counted from 0", f"verdict: {result.verdict}"]


@pytest.mark.parametrize("name", ["evaluation", "radii", "unseen", "corruptions", "trained", "inverse", "study"])
def test_notebooks_show_it_as_html(name):
    shown = printed()[name]._repr_html_()
    assert shown.startswith("<div>")
    assert shown.count("<td>") == shown.count("</td>")


def test_markup_in_a_result_is_no_markup():
    result = replace(printed()["evaluation"], verdict=MARKUP, warnings=[MARKUP], accuracy={MARKUP: 0.5})
    assert "<script>" not in result._repr_html_()
    assert result._repr_html_().count("&lt;script&gt;") == 3
    assert "<script>" not in Result(MARKUP, {}, MARKUP, [[MARKUP]])._repr_html_()


def test_universal_perturbations_print_one_line(trained_runs):
    line = repr(uiat.load_inverse(trained_runs / "uiat"))
    assert line.startswith("universal inverse perturbations of 10 classes, (1, 8, 8) each, within Linf ")
    assert "\n" not in line


# What only reads


@pytest.mark.parametrize("words", [["report", "run", "--out", "a.html"], ["show", "run"]], ids=["report", "show"])
def test_a_command_that_reads_makes_no_data_folder_of_a_received_run(ask, tmp_path, monkeypatch, trained_runs, words):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_runs / "pgd-at", "run")
    Path("run/evaluation.json").unlink()
    Path("run/manifest.json").unlink()  # which would not let the settings be edited
    config = Path("run/config.yaml")
    run = uiat.load_config(config.read_text())
    config.write_text(uiat.dump(replace(run, data=replace(run.data, name="mnist", root=str(tmp_path / "theirs")))))
    code, out, _ = ask(*words)
    assert code == 0
    assert not Path("theirs").exists()
    if words[0] == "report":
        assert "no pictures of run: mnist is missing or damaged" in out
        assert "`uiat evaluate --data.root DIR` downloads it" in out


def test_a_report_shows_the_saved_examples_of_the_images_that_were_taken(ask, user):  # noqa: F811
    few = ["model.name=small-cnn", "model.width=4", "data.name=imagefolder:images", "data.batch_size=8", *QUICK]
    assert ask("train", "digits-pgd-at", *few, "--run-dir", "run", "data.validation=6")[0] == 0
    words = ["--attacks", "fgsm", "-n", 12, "--save-examples", "run/made.safetensors"]
    assert ask("evaluate", "run", *words)[0] == 0
    for images, expected in ((6, "examples in made.safetensors, Linf:0.2"), (12, "examples in made"), (30, "PGD-20")):
        found = predict(read_files(Path("run")), images=images, shown=3)
        assert found.attack.startswith(expected)
        assert [sum(row) for row in found.confusion] == [images / 3] * 3
        assert {sample.index // 20 for sample in found.shown} == {0, 1, 2}
        assert all(sample.index // 20 == sample.label for sample in found.shown)
