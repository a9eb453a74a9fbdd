"""Data sets that Hugging Face `datasets` has saved: columns by their features, and nothing outside the folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from uiat.data import has_test_part, load
from uiat.errors import UserError

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 9, 3), dtype=np.uint8)
LABELS = [1, 0, 1, 0]


def table(rows=slice(None), **columns):
    given = {"img": list(PIXELS[rows]), "label": LABELS[rows]} | {name: list(v[0])[rows] for name, v in columns.items()}
    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    kinds |= {name: kind for name, (_, kind) in columns.items()}
    return datasets.Dataset.from_dict(given, features=datasets.Features(kinds))


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_splits_pixels_and_names_of_classes():
    whole = datasets.DatasetDict(
        {"train": table(), "validation": table(slice(0, 1), id=([5] * 4, datasets.Value("int64")))}
    )
    whole.save_to_disk("saved")
    train, test = load("hf:saved", "train"), load("hf:saved", "test")
    assert torch.equal(train.images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert (train.labels.tolist(), train.classes, train.name) == (LABELS, ("cat", "dog"), "hf:saved")
    assert (test.labels.tolist(), test.classes, has_test_part("hf:saved")) == ([1], ("cat", "dog"), True)
    assert load("hf:saved", "train", image_size=8).image_shape == (3, 8, 8)


def test_one_table_is_one_part():
    table().save_to_disk("saved")
    assert (len(load("hf:saved", "test")), has_test_part("hf:saved")) == (4, False)


def test_what_cannot_be_told_is_refused(monkeypatch):
    fine = (LABELS, datasets.ClassLabel(num_classes=2))
    table(fine=fine).save_to_disk("named")  # `label` is the one that is called so
    assert load("hf:named", "test").labels.tolist() == LABELS
    table(fine=fine).rename_column("label", "coarse").save_to_disk("two")
    table().remove_columns("label").save_to_disk("none")
    for name, message in (
        ("two", "coarse and fine may all be the labels: keep one"),
        ("none", "no column of type ClassLabel or of whole numbers among img"),
        ("gone", "there is no such folder"),
        (".", "it has neither state.json nor dataset_dict.json"),
    ):
        with pytest.raises(UserError, match=message):
            load(f"hf:{name}", "test")


def test_nothing_outside_the_folder_is_opened():
    table().save_to_disk("saved")
    state = json.loads(Path("saved/state.json").read_text())
    state["_data_files"][0]["filename"] = "../other.arrow"
    Path("saved/state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="arrow', which lies outside the folder: it is not opened"):
        load("hf:saved", "test")
    rows = {"img": [{"bytes": None, "path": "/etc/passwd"}], "label": [0]}
    kinds = datasets.Features(
        {"img": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, "label": datasets.Value("int64")}
    )
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk("links")
    info = json.loads(Path("links/dataset_info.json").read_text())
    info["features"]["img"] = {"_type": "Image"}
    Path("links/dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="row 0 is the name of a file outside, which is not opened"):
        load("hf:links", "test")
