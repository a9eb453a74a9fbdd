"""A data set kept in a file of the user's own goes the whole way; its folder runs nothing unless that is allowed."""

import json
from pathlib import Path

import pytest
import torch

import uiat
from support.commands import ask  # noqa: F401 - a fixture
from uiat.data import is_data_code, load, open_data
from uiat.errors import UserError

pytestmark = pytest.mark.usefixtures("unchecked")
NAME = "mine.py:some"
TINY = ["model.width=4", "optimisation.epochs=1", "objective.attack.steps=1", "validation.steps=1"]
SOURCE = """
import torch
import uiat

x, y = uiat.data.tensors("digits", "test")


def some(split):
    return (x[:200], y[:200]) if split == "train" else (x[200:260], y[200:260])


def batches(split):
    return [(x[:30], y[:30]), (x[30:50], y[30:50])]


def broken(split):
    raise KeyError("no such split")


def arrays(split):
    return [x[:50].numpy(), y[:50].numpy()]


def three(split):
    return x, y, y


def by_name(split):
    return {"x": x, "y": y}


def nothing(split):
    pass


class Faulty:
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {}["gone"]


def faulty(split):
    return Faulty()


def dataset(split):
    return torch.utils.data.TensorDataset(x, y)
"""


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SOURCE)


def test_what_a_function_may_return():
    assert (len(load(NAME, "train")), len(load(NAME, "test")), load(NAME, "test").name) == (200, 60, NAME)
    assert (len(load("mine.py:dataset", "test")), len(load("mine.py:arrays", "test"))) == (539, 50)
    assert [len(y) for _, y in open_data("mine.py:batches", "test").chunks()] == [50]
    for name, split, message in (
        ("mine.py:batches", "train", "passes by once and cannot be shuffled"),
        ("mine.py:broken", "train", "the data set mine.py:broken could not be opened: KeyError: 'no such split'"),
        ("mine.py:three", "train", "the data set mine.py:three returned 3 arrays, not two"),
        (
            "mine.py:by_name",
            "train",
            "the data set mine.py:by_name returned a dict: return images and labels as two tensors",
        ),
        ("mine.py:nothing", "test", "the data set mine.py:nothing returned nothing: return images and labels"),
        ("mine.py:faulty", "train", "the data set mine.py:faulty could not be opened: KeyError: 'gone'"),
        ("mine.py:sone", "train", "did you mean 'some'"),
        ("gone.py:some", "train", "there is no file 'gone.py' to read the data set from"),
        ("imagefoldr:a", "train", "unknown data set 'imagefoldr:a'; did you mean"),
    ):
        with pytest.raises(UserError, match=message):
            open_data(name, split)
    with pytest.raises(UserError, match="passes by once, so it is evaluated on and never loaded"):
        load("mine.py:batches", "test")


def test_an_entry_point_is_a_name(monkeypatch):
    class Entry:
        value = "mine:some"

        def load(self):
            return lambda split: (torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))

    def entry_points(*, group, name):
        return [Entry()] if (group, name) == ("uiat.datasets", "faces") else []

    for module in ("uiat.data.own_data", "uiat.system.own_code"):
        monkeypatch.setattr(f"{module}.entry_points", entry_points)
    assert (is_data_code("faces"), is_data_code("digits")) == (True, False)
    assert load("faces", "train").name == "faces"


def test_it_is_trained_resumed_evaluated_studied_and_reported(ask):  # noqa: F811
    assert ask("train", "digits-pgd-at", f"data.name={NAME}", "data.batch_size=50", *TINY, "--run-dir", "run")[0] == 0
    kept = json.loads(Path("run/manifest.json").read_text())["own-code"][NAME]
    assert (Path("run") / kept["copy"]).read_text() == SOURCE
    refused = f"data set is code, '{NAME}': allow it with"
    for words in (
        ["evaluate", "run", "--attacks", "clean"],
        ["train", "--resume", "run"],
        ["analyse", "confidence-gap", "run", "--n", "20", "--out", "study"],
    ):
        code, out, err = ask(*words)
        assert (code, refused in out + err) == (2, True), (words, out + err)
        code, out, err = ask(*words, "--own-code")
        assert code == 0, (words, out + err)
    record = json.loads(Path("run/evaluation.json").read_text())
    assert (record["n"], record["data"], list(record["files"])) == (60, NAME, [NAME])
    assert ask("report", "run", "--out", "page.html", "--own-code")[0] == 0
    # Data that is named beside the run is the user's word, and needs no leave.
    assert ask("evaluate", "run", "--data", "mine.py:batches", "--attacks", "clean", "--out", "other")[0] == 0
    assert json.loads(Path("other/evaluation.json").read_text())["n"] == 50

    Path("mine.py").write_text(SOURCE + "# changed\n")
    for words in (["evaluate", "run", "--attacks", "clean", "--own-code"], ["train", "--resume", "run", "--own-code"]):
        code, _, err = ask(*words)
        assert (code, "mine.py has changed since run began" in err) == (2, True), err
    assert ask("evaluate", "run", "--attacks", "clean", "--changed-code")[0] == 0


def test_a_sweep_and_a_file_with_settings(ask):  # noqa: F811
    more = ["data.batch_size=50", "evaluation.attacks=fgsm", "evaluation.n=20", "--seeds", "0", "--out", "grid"]
    code, out, err = ask("sweep", "digits-standard", f"data.name={NAME}", *TINY[:2], *more)
    assert code == 0, out + err
    assert [row["status"] for row in json.loads(Path("grid/sweep.json").read_text())["runs"]] == ["done"]
    run = uiat.override(uiat.recipes.get("digits-standard"), [("data.name", NAME), ("optimisation.epochs", "1")])
    Path("run.yaml").write_text(uiat.dump(run))
    code, _, err = ask("train", "--config", "run.yaml", "--run-dir", "new")
    assert (code, "run.yaml names code to open the data set with, 'mine.py:some': allow it" in err) == (2, True)
