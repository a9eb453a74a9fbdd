"""Which images are evaluated on, how their labels are matched, and what is streamed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.commands import folder_of_images
from uiat import models
from uiat.config.schema import Data, Run
from uiat.data import Folder, ImageSet, Stream
from uiat.errors import UserError
from uiat.experiments import images as module
from uiat.experiments.images import choose_images, match_classes, note_size, stream_large
from uiat.experiments.options import EvaluateOptions
from uiat.runs.checkpoint import save_weights

BATCHES = "import torch\n\n\ndef batches(split):\n    yield torch.rand(3, 1, 8, 8), torch.arange(3)\n"


def test_a_large_folder_is_streamed_and_a_small_one_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_images(Path("images"), 3, names=("a", "b"), each=4)
    options, run = EvaluateOptions(data="imagefolder:images", n=4), Run()
    assert isinstance(choose_images(options, run)[0], ImageSet)
    monkeypatch.setattr(module, "LARGE_BYTES", 100)
    large, sample = choose_images(options, run)
    assert isinstance(large, Folder)
    assert (len(large), sample.rule, large.labels.tolist().count(0)) == (4, "stratified", 2)
    assert isinstance(stream_large(large), Stream)
    for again in ({"corruptions": "fog"}, {"calls": 3}):
        assert isinstance(choose_images(EvaluateOptions(data="imagefolder:images", **again), run)[0], ImageSet)


def test_an_iterable_of_the_users_own_is_taken_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(BATCHES)
    options = EvaluateOptions(data="mine.py:batches", n=2)
    stream, sample = choose_images(options, Run())
    assert isinstance(stream, Stream)
    assert ([len(y) for _, y in stream.chunks()], sample.text, sample.to_json()) == (
        [2],
        "the first",
        {"rule": "first", "of": None},
    )
    with pytest.raises(UserError, match="yields its images once, and --norms and --calls need them again: return tens"):
        choose_images(EvaluateOptions(data="mine.py:batches", norms="usual", calls=2), Run())
    with pytest.raises(UserError, match="the run's data set is code, 'mine"):
        choose_images(EvaluateOptions(run=Path("a")), Run(data=Data(name="mine.py:batches")))


def test_images_of_another_size_than_in_training_are_noted(tmp_path):
    spec = {"name": "small-cnn", "num_classes": 3, "image_shape": [1, 8, 8], "width": 4}
    save_weights(tmp_path / "best.safetensors", models.build(**spec), spec=spec, threat=None)
    assert note_size(named_set("a", "b", "c"), tmp_path, "best") == []
    larger = replace(named_set("a", "b", "c"), images=torch.rand(4, 1, 28, 28))
    said = ["the images of imagefolder:x are 1 x 28 x 28, and the run was trained on 1 x 8 x 8"]
    assert note_size(larger, tmp_path, "best") == said


def named_set(*classes, numbers=(0, 1, 2, 0)):
    return ImageSet(torch.rand(len(numbers), 1, 8, 8), torch.tensor(numbers), classes, "imagefolder:x")


def test_labels_are_numbered_as_in_training_by_the_names_of_the_classes():
    images, notes = match_classes(named_set("cat", "dog", "emu"), ["emu", "cat", "dog"], Path("a"))
    assert images.labels.tolist() == [1, 2, 0, 1]
    assert images.classes == ("emu", "cat", "dog")
    assert notes == ["the classes of imagefolder:x are in another order than in training: labels are matched by name"]


@pytest.mark.parametrize(
    ("here", "trained"),
    [
        (("a", "b", "c"), ["a", "b", "c"]),
        (("a", "b", "c"), []),  # weights of version 0.1
        (("a", "b", "c"), ["0", "1", "2"]),  # trained on tensors
        (("0", "1", "2"), ["a", "b", "c"]),
        (("2", "10", "9"), ["0", "1", "2"]),
    ],
)
def test_names_that_say_nothing_change_nothing(here, trained):
    images, notes = match_classes(named_set(*here), trained, Path("a"))
    assert (images.labels.tolist(), images.classes, notes) == ([0, 1, 2, 0], here, [])


@pytest.mark.parametrize("trained", [["cat", "dog", "fox"], ["Cat", "dog", "emu"], ["cat", "dog", "emu", "fox"]])
def test_other_classes_than_in_training_are_refused_by_name(trained):
    with pytest.raises(UserError, match=r"^a was trained on other classes than imagefolder:x has"):
        match_classes(named_set("cat", "dog", "emu"), trained, Path("a"))
