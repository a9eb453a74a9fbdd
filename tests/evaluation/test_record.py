"""Records of evaluations: sealed, never over an earlier one, and bound to the weights of a folder."""

import json

import pytest

import uiat
from support import tiny
from uiat import UserError
from uiat.evaluation import record
from uiat.evaluation.engine.plan import is_counted
from uiat.evaluation.registry import attack
from uiat.runs import reader
from uiat.runs.evaluations import find_evaluations
from uiat.system.manifest import is_sealed


def test_the_files_have_one_name():
    assert reader.WEIGHTS_FILES is record.WEIGHTS_FILES
    assert reader.EVALUATION_FILE == record.EVALUATION_FILE


def test_a_result_is_saved_into_the_run_of_its_weights_alone(tmp_path):
    x, y = tiny.tensors()
    model = tiny.linear()
    options = {"objective": uiat.PGDAT(attack=tiny.attack()), "optimisation": uiat.Optimisation(epochs=2)}
    trained = uiat.fit(model, (x, y), batch_size=20, run_dir=tmp_path / "run", **options)
    threat = uiat.Linf(0.2)
    result = uiat.evaluate(trained.model, x, y, threat=threat, attacks=["fgsm"])
    path = result.save(tmp_path / "run")
    saved = json.loads(path.read_text())
    assert is_sealed(saved)
    assert (saved["which"], saved["accuracy"], saved["n"]) == ("best", result.accuracy, 64)
    earlier = path.read_bytes()
    uiat.evaluate(trained.model, x[:8], y[:8], threat=threat, attacks=["fgsm"]).save(tmp_path / "run")
    assert (tmp_path / "run" / "evaluation-1.json").read_bytes() == earlier
    other = uiat.evaluate(tiny.linear(), x, y, threat=threat, attacks=["fgsm"])
    with pytest.raises(UserError, match="has neither the best nor the last weights of"):
        other.save(tmp_path / "run")


@pytest.mark.parametrize("content", [b'{"accuracy": ', b"[]", b'{"format": 2, "sha256": "0"}', b'{"format": 99}'])
def test_a_damaged_record_is_set_aside_where_nothing_reads_it(content, tmp_path, caplog):
    for number in (1, 2):
        (tmp_path / "evaluation.json").write_bytes(content)
        assert record.keep_earlier(tmp_path / "evaluation.json") is None
        assert (tmp_path / f"evaluation-damaged-{number}.json").read_bytes() == content
        assert f"it is set aside as evaluation-damaged-{number}.json" in caplog.text
    record.write_record(tmp_path / "evaluation.json", {"threat": "Linf:0.1", "n": 1, "accuracy": {"clean": 1.0}})
    assert [found.path.name for found in find_evaluations(tmp_path)] == ["evaluation.json"]
    assert record.keep_earlier(tmp_path / "evaluation.json").name == "evaluation-1.json"


def test_a_record_that_cannot_be_read_is_set_aside_and_one_that_cannot_be_kept_is_said(tmp_path, monkeypatch, caplog):
    def refuse(path, *_):
        raise OSError(22, "Invalid argument", str(path))  # as a link to a file of /proc answers

    path = tmp_path / "evaluation.json"
    path.write_text("precious")
    monkeypatch.setattr(record, "read_file", refuse)
    assert record.keep_earlier(path) is None
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation-damaged-1.json"]
    assert "it is set aside as evaluation-damaged-1.json" in caplog.text
    path.write_text("precious")
    monkeypatch.setattr(type(path), "rename", refuse)
    with pytest.raises(UserError, match=r"cannot set .* aside as evaluation-damaged-2.json: Invalid argument"):
        record.keep_earlier(path)
    assert path.read_text() == "precious"


def test_attacks_outside_of_the_ball_are_those_that_say_so():
    names = ("pgd-2", "uap-2", "square", "noise-2", "patch-2", "spatial", "recolour")
    made = [attack(name, threat=uiat.Linf(0.1)) for name in names]
    assert {type(each).__name__ for each in made if not is_counted(each)} == set(record.OUTSIDE_BALL)
