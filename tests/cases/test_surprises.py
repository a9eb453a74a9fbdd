"""What a first-time user meets without a word: which images are taken, what is said, what is printed."""

from pathlib import Path

import pytest
import torch

import uiat
from support.commands import ask, result  # noqa: F401 - a fixture
from uiat.analyse.study import Context, StudyOptions, StudyRun
from uiat.config.schema import Data, Run
from uiat.evaluation.robustbench import evaluate_zoo
from uiat.experiments.target import evaluated_images

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
