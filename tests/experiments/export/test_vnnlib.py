"""VNN-LIB properties: read by the format's own library, and true of the images that they are about."""

import re
from dataclasses import replace

import pytest
import torch

from uiat.errors import UserError
from uiat.experiments.export import export_run
from uiat.experiments.export.bundle import open_bundle
from uiat.experiments.export.vnnlib import property_text, property_text_2, write_properties


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


def read(text):
    """The expressions of a property, as nested lists."""
    stack = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    return stack[0]


def value(expression, known):
    if isinstance(expression, str):
        return known[expression] if expression in known else float(expression)
    values = [value(part, known) for part in expression[1:]]
    joins = {">=": lambda v: v[0] >= v[1], "<=": lambda v: v[0] <= v[1], "and": all, "or": any}
    return joins[expression[0]](values)


@pytest.mark.parametrize(
    ("write", "pixel", "logit"), [(property_text, "X_{}", "Y_{}"), (property_text_2, "X[0,0,0,{}]", "Y[0,{}]")]
)
def test_a_point_has_the_property_exactly_if_it_is_an_adversarial_example(write, pixel, logit):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    image, epsilon = torch.tensor([[[0.3, 0.95]]]), 0.25
    label = int(net(image[None]).argmax())
    parts = [part[1] for part in read(write(image, label, 3, epsilon)) if part[0] == "assert"]
    # A grid beyond the box and beyond [0, 1], off the box's edges.
    grid = torch.cartesian_prod(*[torch.linspace(-0.107, 1.303, 40)] * 2).view(-1, 1, 1, 2)
    logits = net(grid).detach()
    inside = ((grid - image).abs() <= epsilon).flatten(1).all(1) & ((grid >= 0) & (grid <= 1)).flatten(1).all(1)
    truth = (inside & (logits.argmax(1) != label)).tolist()
    for x, y, is_adversarial in zip(grid.flatten(1).tolist(), logits.tolist(), truth, strict=True):
        known = {pixel.format(i): v for i, v in enumerate(x)} | {logit.format(k): v for k, v in enumerate(y)}
        assert all(value(part, known) for part in parts) is is_adversarial
    assert 0 < sum(truth) < int(inside.sum())  # the grid has both
