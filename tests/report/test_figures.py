"""Accuracy against strength, accuracy by class, confusion."""

from dataclasses import replace

from support.run_folders import make_samples
from uiat.report import read_all
from uiat.report.figures import classes, confusions, strength
from uiat.report.inputs import Inputs


def test_strength_is_drawn_over_pixel_values_where_radii_are_whole_ones(runs):
    panel = strength(Inputs(read_all(runs)))
    (figure,) = panel.figures
    assert figure.caption == "Accuracy under pgd-20 at each Linf radius; below 0 it helps the model"
    assert figure.values.head == ["radius / 255", "cifar10-resnet18-pgd-at, seed 0", "uiat"]
    assert figure.values.rows[0] == ["-3.99993", "90", "90"]
    assert [label for _, label in panel.legend] == ["cifar10-resnet18-pgd-at", "uiat"]
    assert strength(Inputs(read_all(runs[1:2]))).is_empty


def test_classes_and_confusion_are_of_the_first_run_of_each_group(runs):
    inputs = Inputs(read_all(runs), make_samples(runs[2]))
    by_class = classes(inputs).figures
    assert [figure.values.rows[3][0] for figure in by_class] == ["3", "cat"]
    assert by_class[1].values.rows[3] == ["cat", "76.0", "42.5"]
    assert "Hardest: truck" in by_class[1].svg
    (confusion,) = confusions(inputs).figures
    assert confusion.caption == "uiat: PGD-20, 310 images, 31 of a class"
    assert confusion.values.rows[3] == ["cat", "1", "1", "1", "22", "1", "1", "1", "1", "1", "1", "31"]
    answers = inputs.samples_of(inputs.groups[1])
    few = {runs[2]: replace(answers, confusion=[[2] * 10] * 10)}  # 20 of a class
    assert confusions(Inputs(inputs.runs, few)).is_empty
