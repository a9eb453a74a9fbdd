"""VNN-LIB properties: read by the format's own library, and true of the images that they are about."""

from dataclasses import replace

import pytest
import torch

from uiat.errors import UserError
from uiat.experiments.export import export_run
from uiat.experiments.export.bundle import open_bundle
from uiat.experiments.export.vnnlib import property_text, write_properties


def test_a_property_is_the_box_and_every_other_class():
    text = property_text(torch.tensor([[[0.9375, 0.0]]]), 2, 3, 0.1)
    assert "(assert (>= X_0 0.8375))" in text
    assert "(assert (<= X_0 1.0))" in text
    assert "(assert (>= X_1 0.0))" in text
    assert "(assert (<= X_1 0.1))" in text
    assert "(assert (or (and (>= Y_0 Y_2)) (and (>= Y_1 Y_2))))" in text
    assert "(assert (>= X_0 0.00000009))" in property_text(torch.full((1, 1, 1), 1e-7), 0, 2, 1e-8)


def test_there_is_one_for_each_image_that_the_model_has_right(evaluated_run, tmp_path):
    pytest.importorskip("onnxruntime")
    done = export_run(evaluated_run, "onnx", out=tmp_path / "new", vnnlib=12)
    bundle = open_bundle(evaluated_run, which="best", own_code=False, root=None)
    right = (bundle.logits.argmax(1) == bundle.labels)[:12].nonzero().flatten().tolist()
    assert done.properties == len(right) > 0
    rows = [line.split(",") for line in (done.folder / "instances.csv").read_text().splitlines()]
    assert [row[1] for row in rows] == [f"vnnlib/image-{i:05d}.vnnlib" for i in right]
    assert all((done.folder / row[0]).is_file() and (done.folder / row[1]).is_file() for row in rows)


def test_the_formats_library_reads_them(evaluated_run, tmp_path):
    vnnlib = pytest.importorskip("vnnlib")
    bundle = open_bundle(evaluated_run, which="best", own_code=False, root=None)
    count = write_properties(bundle, tmp_path, 3)
    paths = list((tmp_path / "vnnlib-2").iterdir())
    assert len(paths) == count
    for path in paths:
        assert "[1, 1, 8, 8]" in str(vnnlib.parse_query_file(str(path)))


def test_other_balls_are_no_boxes(evaluated_run, tmp_path):
    bundle = open_bundle(evaluated_run, which="best", own_code=False, root=None)
    for threat in ("L2:0.5", ""):
        with pytest.raises(UserError, match="need a run trained against Linf"):
            write_properties(replace(bundle, threat=threat), tmp_path, 3)
