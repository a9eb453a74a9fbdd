"""`uiat show`."""

import json

import pytest


def test_show_tells_settings_epochs_evaluation_alarms_and_files(ask, run):
    ask("evaluate", run, "--attacks", "fgsm", "--n", 20)
    row = json.loads((run / "metrics.jsonl").read_text())
    (run / "metrics.jsonl").write_text(json.dumps(row | {"alarms": ["something is odd"]}) + "\n")
    code, out, err = ask("show", run)
    assert (code, err) == (0, "")
    for text in (
        *("digits, batches of 64", "small-cnn, width 4", "Linf 0.2", "model.width=4", "1 of 1 done"),
        *("adv_ce", "inverse_kl", "alarm in epoch 1: something is odd", "fgsm", "best.safetensors", "kB"),
    ):
        assert text in out
    assert "evaluation: best weights on digits, threat model Linf 0.2" in out


def test_show_works_before_the_first_epoch_has_ended(ask, run):
    for name in ("metrics.jsonl", "best.safetensors", "last.safetensors"):
        (run / name).unlink()
    code, out, _ = ask("show", run)
    assert code == 0
    assert "0 of 1 done" in out


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json", "environment.json", "config.yaml"])
@pytest.mark.parametrize("content", [b"[1, 2", b"\xff\xfe\x00", b'{"epoch": "x"}\n'])
def test_a_damaged_file_is_named(ask, run, name, content):
    (run / name).write_bytes(content)
    code, _, err = ask("show", run)
    if name == "environment.json" and content.startswith(b"{"):
        assert code == 0  # a JSON object, of which little is asked
        return
    assert code == 2
    assert str(run / name) in err or name == "config.yaml"
    assert err.count("\n") == 1
