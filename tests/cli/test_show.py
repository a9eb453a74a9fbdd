"""`uiat show`."""

import json
import os

import pytest

from uiat.system.manifest import write_recorded


def test_show_tells_settings_epochs_evaluation_alarms_and_files(ask, run):
    ask("evaluate", run, "--attacks", "fgsm", "--n", 20)
    row = json.loads((run / "metrics.jsonl").read_text())
    odd = json.dumps(row | {"alarms": ["something is odd"]}) + "\n"
    write_recorded(run / "metrics.jsonl", odd.encode())
    code, out, err = ask("show", run)
    assert (code, err) == (0, "")
    for text in (
        *("digits, batches of 64", "small-cnn, width 4", "Linf 0.2", "model.width=4", "1 of 1 done"),
        *("adv_ce", "inverse_kl", "alarm in epoch 1: something is odd", "fgsm", "best.safetensors", "kB"),
    ):
        assert text in out
    assert "evaluation: best weights on digits, threat model Linf 0.2" in out


def test_a_narrow_terminal_breaks_no_number(ask, run, monkeypatch):
    row = json.loads((run / "metrics.jsonl").read_text())
    loss = f"{row['train_adv_ce']:.4f}"
    for width, hidden in (
        (200, ""),
        (80, " (too narrow here for images/s"),
        (60, "images/s, seconds, learning rate, accuracy on attacked batches)"),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        out = ask("show", run)[1]
        epochs = out[out.index("epochs\n" if not hidden else "epochs (") : out.index("files in")]
        assert loss in epochs
        assert f"{100 * row['robust']:.2f} %" in epochs
        assert hidden in epochs.splitlines()[0]


def test_show_works_before_the_first_epoch_has_ended(ask, run):
    for name in ("metrics.jsonl", "best.safetensors", "last.safetensors", "manifest.json"):
        (run / name).unlink()
    code, out, _ = ask("show", run)
    assert code == 0
    assert "0 of 1 done" in out


def test_json_is_the_whole_of_it_and_names_damage_too(ask, run):
    code, out, err = ask("show", run, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["kind"], facts["name"], facts["threat"]) == ("run", "digits-uiat", "Linf:0.2")
    assert (facts["epochs_done"], facts["epochs"], facts["best_epoch"], facts["evaluation"]) == (1, 1, 1, None)
    assert facts["overridden"]["model.width"] == 4
    assert facts["config"]["model"]["width"] == 4
    assert {"name": "config.yaml", "bytes": (run / "config.yaml").stat().st_size}.items() <= facts["files"][2].items()
    (run / "last.safetensors").write_bytes(b"damaged")
    code, out, err = ask("show", run, "--json")
    assert code == 2
    assert "last.safetensors" in json.loads(out)["damage"][0]
    assert "last.safetensors" in err


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json", "environment.json", "config.yaml"])
@pytest.mark.parametrize("content", [b"[1, 2", b"\xff\xfe\x00", b'{"epoch": "x"}\n'])
def test_a_damaged_file_is_named(ask, run, name, content):
    (run / name).write_bytes(content)
    code, _, err = ask("show", run)
    assert code == 2
    assert str(run / name) in err
    assert err.count("\n") == 1


def test_the_folders_of_a_sweep_and_of_an_evaluation_alone_are_shown(ask, own, tmp_path):
    words = ["model.width=4", "optimisation.epochs=1", "evaluation.attacks=fgsm", "evaluation.n=20"]
    sets = [part for word in words for part in ("--set", word)]
    assert ask("sweep", "digits-standard", "--seeds", "0", *sets, "--out", tmp_path / "sweep")[0] == 0
    code, out, err = ask("show", tmp_path / "sweep")
    assert (code, err) == (0, "")
    assert "sweep of digits-standard" in out
    assert "stale" not in out
    run = next(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    (run / "evaluation.json").unlink()
    code, out, _ = ask("show", tmp_path / "sweep")
    assert code == 0
    assert "stale: sweep.json lists" in out
    facts = json.loads(ask("show", tmp_path / "sweep", "--json")[1])
    assert (facts["kind"], facts["recipe"], len(facts["runs"])) == ("sweep", "digits-standard", 1)
    assert facts["runs"][0]["stale"]
    assert ask("evaluate", *own, "--attacks", "fgsm", "--n", 20, "--out", tmp_path / "alone")[0] == 0
    code, out, err = ask("show", tmp_path / "alone")
    assert (code, err) == (0, "")
    assert "evaluation: mine.py:net on digits" in out
    facts = json.loads(ask("show", tmp_path / "alone", "--json")[1])
    assert (facts["kind"], facts["evaluation"]["n"]) == ("evaluation", 20)
    code, out, err = ask("report", tmp_path / "alone", tmp_path / "sweep", "--out", tmp_path / "new" / "r.html")
    assert code == 0
    assert "no pictures of" in out
    text = (tmp_path / "new" / "r.md").read_text()
    assert "an evaluation without a training run" in text
    assert str(run) in text
    code, _, err = ask("analyse", "strength", tmp_path / "alone")
    assert code == 2
    assert "holds a training run" in err


def test_damage_that_show_does_not_read_is_named_in_the_end(ask, run):
    content = bytearray((run / "last.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "last.safetensors").write_bytes(content)
    code, out, err = ask("show", run)
    assert code == 2
    assert "1 of 1 done" in out
    assert f"{run / 'last.safetensors'} is not the file that was written here" in err


def test_a_run_is_watched_until_it_has_ended(ask, run, monkeypatch):
    from uiat.cli import show
    from uiat.system.manifest import update_manifest

    looks = []

    def look(seconds):
        looks.append(seconds)
        if len(looks) == 2:  # a second look at the same epochs shows nothing
            os.utime(run / "metrics.jsonl", (1, 4_000_000_000))
            update_manifest(run, ended=True)

    monkeypatch.setattr(show.time, "sleep", look)
    update_manifest(run, ended=False)
    code, out, _ = ask("show", run, "--watch")
    assert (code, len(looks)) == (0, 2)
    assert out.count("files in") == 2
    assert "leave one of them out" in ask("show", run, "--watch", "--json")[2]
