import json

import pytest

from uiat import Run, UserError
from uiat.experiments import GridRun
from uiat.experiments.sweep_file import read_record, write_record
from uiat.system.manifest import seal


def test_runs_of_earlier_calls_stay_and_those_of_this_one_are_replaced(tmp_path):
    path = tmp_path / "sweep.json"
    first, second = (GridRun({}, Run(seed=seed), tmp_path / f"seed={seed}") for seed in (0, 1))
    write_record(path, "digits-uiat", [first])
    first.status, first.seconds = "done", 2.0
    first.result = {"accuracy": {"clean": 0.5}, "data": "digits", "threat": "Linf:0.2", "n": 4, "verdict": ""}
    second.status, second.reason = "failed", "no memory"
    write_record(path, "digits-uiat", [second])
    write_record(path, "digits-uiat", [first])
    rows = read_record(path, "digits-uiat")
    assert rows[0] == {"folder": "seed=1", "settings": {}, "seed": 1, "status": "failed", "reason": "no memory"}
    assert (rows[1]["status"], rows[1]["accuracy"], rows[1]["training_seconds"]) == ("done", {"clean": 0.5}, 2.0)
    assert json.loads(path.read_text())["kind"] == "uiat.sweep"


@pytest.mark.parametrize("content", ["[1", "{}", '{"kind": "other", "recipe": "a", "runs": []}', "\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "sweep.json"
    path.write_text(content)
    with pytest.raises(UserError, match="is damaged, or no record of a sweep"):
        read_record(path, "digits-uiat")


@pytest.mark.parametrize(
    "row", [{"folder": {"a": 1}}, {"folder": [1]}, {}, {"folder": "a", "status": {}}, {"folder": "a", "settings": 5}]
)
def test_a_sealed_record_of_what_cannot_be_is_damaged(tmp_path, row):
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(seal({"kind": "uiat.sweep", "recipe": "digits-uiat", "runs": [row]})))
    with pytest.raises(UserError, match="is damaged, or no record of a sweep"):
        write_record(path, "digits-uiat", [])
