"""What is certified stands in the report, by bounds and by smoothing, over the seeds of a group."""

from pathlib import Path

from uiat.report.certified import certified
from uiat.report.inputs import Inputs
from uiat.runs.run_files import RunFiles

SMOOTH = {"accuracy": 0.5, "mean_radius": 0.2, "abstained": 1, "radii": [0.1] * 4, "at": [0.0, 0.125]}


def run(seed, **evaluation):
    return RunFiles(
        Path(f"a{seed}"), {"name": "a", "seed": seed}, evaluation={"n": 4, "threat": "Linf:0.1", **evaluation}
    )


def test_a_row_for_each_certification_with_the_mean_over_seeds():
    bounds = {"accuracy": 0.25, "threat": "Linf:0.1"}
    runs = [
        run(seed, certified=bounds, smoothing={"certify-smoothing-0.25": SMOOTH | {"certified": [0.5, share]}})
        for seed, share in ((0, 0.25), (1, 0.75))
    ]
    (table,) = certified(Inputs(runs)).tables
    assert [[cell.text for cell in row[1:3]] for row in table.rows] == [
        ["bounds, Linf 0.1", "25.00 ± 0.00"],
        ["smoothing-0.25", "50.00 ± 0.00"],
    ]
    assert [cell.text for cell in table.rows[1][3:]] == ["0.200 ± 0.000", "25.0 ± 0.0", "50.0 at 0, 50.0 at 0.125"]
    assert certified(Inputs([run(0)])).is_empty
