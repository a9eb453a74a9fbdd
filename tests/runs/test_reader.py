"""Run folders as they are read: damage is refused by name, a cut last line is left out; and what settings decide."""

import json
import logging

import pytest

import uiat
from uiat.config.yaml_io import describe_fields, to_dict
from uiat.errors import UserError
from uiat.inverse import universal
from uiat.runs import reader
from uiat.runs.evaluations import read_evaluation
from uiat.runs.reader import EFFECTS, effect_of, read_history, read_metrics
from uiat.runs.run_files import read_files
from uiat.runs.settings import find_differences

ROW = '{"epoch": 0, "clean": 0.5, "robust": null, "alarms": ["odd"]}\n'


@pytest.mark.parametrize("cut", ['{"epoch": 1, "cle', "{", '{"epoch": 1, "clean": 0.5, "alarms": ["\ud7ff'])
def test_a_last_line_that_a_kill_has_cut_is_left_out_and_numbered(tmp_path, cut):
    (tmp_path / "metrics.jsonl").write_text(ROW + cut)
    rows, line = read_metrics(tmp_path / "metrics.jsonl")
    assert (len(rows), line) == (1, 2)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"epoch": 0, "cl\n' + ROW, 1),  # a cut that somebody has written on
        (ROW + '{"epoch": 1, "cl\n', 2),  # a whole line
        (ROW + "[1, 2", 2),
        (ROW + '{"epoch": "1"}\n', 2),
        (ROW + '{"epoch": 1, "clean": "much"}\n' + ROW, 2),
        (ROW + '{"epoch": 1, "clean": true}\n', 2),
        ("\n" + ROW, 1),
    ],
)
def test_any_other_damage_to_metrics_is_refused_with_its_line(tmp_path, text, line):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=rf"metrics\.jsonl is damaged in line {line}: it is no row of measurements"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_cut_last_line_is_a_warning_of_the_history(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text(ROW + '{"epoch": 1, "cl')
    with caplog.at_level(logging.WARNING, logger="uiat"):
        assert read_history(tmp_path) == [json.loads(ROW)]
    assert f"the last line of {tmp_path / 'metrics.jsonl'} is cut off and was left out (line 2)" in caplog.text


RESULT = {"accuracy": {"clean": 0.5}, "n": 4, "threat": "Linf:0.1"}


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "{", "[" * 100_000, "\ud83d"),
        *(json.dumps({key: value for key, value in RESULT.items() if key != gone}) for gone in RESULT),
        json.dumps(RESULT | {"accuracy": {"clean": "half"}}),
        json.dumps(RESULT | {"accuracy": {"worst": 0.5}}),
        json.dumps(RESULT | {"seconds": {"clean": True}}),
    ],
)
def test_a_damaged_result_is_refused_by_name(tmp_path, content):
    (tmp_path / "evaluation.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        read_evaluation(tmp_path)


def test_a_result_is_read(tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(RESULT))
    assert read_evaluation(tmp_path) == RESULT


def test_the_inverse_perturbations_have_one_file_name():
    assert reader.INVERSE_FILE == universal.INVERSE_FILE


def test_every_setting_with_an_effect_of_its_own_is_one_of_a_run():
    paths = [path for path, _, _ in describe_fields(uiat.Run())]
    for key in EFFECTS:
        assert any(path == key or (key.endswith(".") and path.startswith(key)) for path in paths), key


@pytest.mark.parametrize(
    ("path", "effect"),
    [
        ("objective.weight", (True, True, True)),
        ("seed", (True, True, False)),
        ("data.root", (False, False, False)),
        ("data.batch_size", (True, True, True)),
        ("compute.device", (False, False, False)),
        ("compute.precision", (True, True, False)),
        ("guards.overfitting", (False, False, False)),
        ("evaluation.n", (False, True, False)),
        ("evaluation.threat.epsilon", (True, True, False)),
        ("names", (True, True, True)),
    ],
)
def test_what_a_setting_decides(path, effect):
    assert effect_of(path) == effect


def test_a_method_differs_in_neither_seed_nor_machine():
    base = uiat.Run()
    same = uiat.override(base, [("seed", "3"), ("compute.precision", "bf16"), ("guards.chance_epochs", "2")])
    lighter = uiat.override(same, [("objective.weight", "1")])
    assert find_differences(to_dict(same), to_dict(base)) == ""
    assert find_differences(to_dict(lighter), to_dict(base)) == "objective.weight=1.0"


def test_a_folder_without_settings_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.yaml"):
        read_files(tmp_path)
