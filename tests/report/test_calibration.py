"""Calibration errors stand in the report, clean and under attack."""

from pathlib import Path

from uiat.report.calibration import calibration
from uiat.report.inputs import Inputs
from uiat.runs.run_files import RunFiles


def test_a_column_for_the_images_as_they_are_and_for_each_attack():
    found = {"a": {"ece": 0.01, "attacked": {"pgd-20": 0.25}}, "b": {"ece": 0.02}, "c": {}}
    configs = {name: {"name": name, "objective": {"weight": name}} for name in found}
    runs = [RunFiles(Path(n), configs[n], evaluation={"n": 4, "calibration": found[n]}) for n in found]
    (table,) = calibration(Inputs(runs)).tables
    assert [column.name for column in table.columns] == ["run", "clean", "pgd-20"]
    assert [[cell.text for cell in row[1:]] for row in table.rows] == [["1.00", "25.00"], ["2.00", "–"]]
