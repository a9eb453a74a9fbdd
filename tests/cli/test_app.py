import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import uiat
from support.paths import ROOT

TINY = ["model.width=4", "optimisation.epochs=1", "objective.attack.steps=2", "validation.steps=2"]
EPOCHS = 12
UIAT = [sys.executable, "-m", "uiat"]


def environment():
    sources = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": sources, "NO_COLOR": "1"}


def process(*words, **options):
    return subprocess.Popen(
        [*UIAT, *map(str, words)],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


# What works.


def test_train_says_where_it_goes_and_prints_a_line_an_epoch(ask, tmp_path):
    folder = tmp_path / "run"
    words = ["digits-standard", "model.width=4", "--optimisation.epochs=2", "--seed", "3", "--run-dir", folder]
    code, out, err = ask("train", *words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"run folder: {folder}"
    assert [line[:10] for line in lines if line.startswith("epoch")] == ["epoch 1/2:", "epoch 2/2:"]
    assert f"uiat evaluate {folder}" in out
    run = uiat.load_config((folder / "config.yaml").read_text())
    assert (run.seed, run.model.width, run.optimisation.epochs) == (3, 4, 2)


def test_train_from_a_file_with_an_override_into_a_numbered_folder(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("name: mine\nmodel: {width: 4}\nobjective: {name: standard}\n")
    for folder in ("mine", "mine-2"):
        code, out, _ = ask("train", "--config", "run.yaml", "optimisation.epochs=1")
        assert code == 0
        assert out.startswith(f"run folder: runs/{folder}\n")


def test_a_finished_run_has_nothing_left_to_train(ask, run):
    code, out, _ = ask("train", "--resume", run)
    assert code == 0
    assert "nothing is left to train" in out


def test_evaluate_writes_the_result_twice_and_prints_it(ask, run, tmp_path):
    words = ["--attacks", "pgd-2, cw-2", "--n", 50, "--batch-size", 20, "--json", tmp_path / "a.json"]
    code, out, err = ask("evaluate", run, *words, "--threat", "Linf:8/255", "--which", "last")
    assert (code, err) == (0, "")
    result = json.loads((run / "evaluation.json").read_text())
    assert result == json.loads((tmp_path / "a.json").read_text())
    assert list(result["accuracy"]) == ["clean", "pgd-2", "cw-2", "worst"]
    facts = [result[key] for key in ("n", "which", "data", "split", "seed", "batch_size", "run")]
    assert facts == [50, "last", "digits", "test", 0, 20, "digits-uiat"]
    assert result["threat"] == f"Linf:{8 / 255:.7g}"
    assert "threat model Linf 8/255" in out
    assert re.search(r"worst +\d+\.\d\d % +\d+\.\d\d - \d+\.\d\d +50", out)


def test_evaluate_takes_what_it_is_not_told_from_the_run(ask, run):
    settings = run / "config.yaml"
    old = uiat.load_config(settings.read_text())
    settings.write_text(uiat.dump(uiat.override(old, [("evaluation.attacks", "[fgsm]"), ("evaluation.n", "30")])))
    assert ask("evaluate", run)[0] == 0
    result = json.loads((run / "evaluation.json").read_text())
    assert (list(result["accuracy"]), result["n"]) == (["clean", "fgsm", "worst"], 30)


def test_a_run_that_asks_for_more_images_than_there_are_is_judged_on_all(ask, run):
    old = uiat.load_config((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(uiat.dump(uiat.override(old, [("evaluation.n", "100000")])))
    assert ask("evaluate", run, "--attacks", "clean")[0] == 0
    assert json.loads((run / "evaluation.json").read_text())["n"] == 539


def test_show_tells_settings_epochs_evaluation_alarms_and_files(ask, run):
    ask("evaluate", run, "--attacks", "fgsm", "--n", 20)
    row = json.loads((run / "metrics.jsonl").read_text())
    (run / "metrics.jsonl").write_text(json.dumps(row | {"alarms": ["something is odd"]}) + "\n")
    code, out, err = ask("show", run)
    assert (code, err) == (0, "")
    for text in (
        *("digits, batches of 64", "small-cnn, width 4", "Linf, epsilon 51/255", "model.width=4", "1 of 1 done"),
        *("adv_ce", "inverse_kl", "alarm in epoch 1: something is odd", "fgsm", "best.safetensors", "kB"),
    ):
        assert text in out
    assert "evaluation: best weights on digits, threat model Linf:0.2" in out


def test_show_works_before_the_first_epoch_has_ended(ask, run):
    for name in ("metrics.jsonl", "best.safetensors", "last.safetensors"):
        (run / name).unlink()
    code, out, _ = ask("show", run)
    assert code == 0
    assert "0 of 1 done" in out


def test_paper_prints_every_statement(ask):
    paper = pytest.importorskip("uiat.cli.paper")
    code, out, _ = ask("paper")
    assert code == 0
    assert all(row.symbol.split()[0] in out for row in paper.ROWS)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(ask, words):
    code, out, err = ask(*words)
    assert (code, err) == (0, "")
    assert all(name in out for name in ("train", "evaluate", "show", "recipes", "paper", "Exit codes"))


@pytest.mark.parametrize("command", ["train", "evaluate", "show", "recipes", "paper"])
def test_every_command_has_help(ask, command):
    code, out, err = ask(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: uiat {command}")


def test_help_says_defaults_and_units(ask):
    out = ask("evaluate", "--help")[1]
    assert "in units of the image range [0, 1]" in " ".join(out.split())
    assert "[default: best]" in " ".join(out.split())


def test_help_of_a_recipe_lists_every_field_with_its_default(ask):
    code, out, _ = ask("train", "digits-trades", "seed=7", "--help")
    assert code == 0
    assert re.search(r"^ seed +7 ", out, re.M)
    run = uiat.recipes.get("digits-trades")
    assert all(path in out for path, _, _ in uiat.text.describe(run))


def test_version(ask):
    code, out, _ = ask("--version")
    assert code == 0
    assert out.startswith("uiat")


# What is refused: exit code 2 and one line.

MISTAKES = {
    "command": (["recpes"], "unknown command 'recpes'; did you mean 'recipes'"),
    "option before": (["--verson"], "--verson"),
    "no recipe": (["train"], "name a recipe"),
    "recipe": (["train", "digits-uait"], "did you mean 'digits-uiat'"),
    "two recipes": (["train", "digits-uiat", "digits-iat"], "unexpected 'digits-iat'"),
    "field": (["train", "digits-uiat", "objective.wieght=2"], "did you mean 'objective.weight'"),
    "value": (["train", "digits-uiat", "objective.weight=abc"], "objective.weight should be"),
    "choice": (["train", "digits-uiat", "data.augment=flip"], "unknown data.augment 'flip'"),
    "group": (["train", "digits-uiat", "--objective", "uiat"], "objective must be a mapping"),
    "no value": (["train", "digits-uiat", "--objective.weight"], "--objective.weight needs a value"),
    "no value but an option": (["train", "digits-uiat", "--objective.weight", "--seed=1"], "needs a value"),
    "option": (["train", "digits-uiat", "--run-dri", "x"], "did you mean '--run-dir'"),
    "short option": (["train", "digits-uiat", "-x"], "unknown option '-x'"),
    "option without value": (["train", "digits-uiat", "--run-dir"], "--run-dir"),
    "pixels": (["train", "digits-uiat", "objective.attack.threat.epsilon=8"], 'did you mean "8/255"'),
    "batch size": (["train", "digits-uiat", "data.batch_size=5000"], "larger than the set"),
    "model": (["train", "digits-uiat", "model.name=small-cn"], "did you mean 'small-cnn'"),
    "data": (["train", "digits-uiat", "data.name=digit"], "did you mean 'digits'"),
    "device": (["train", "digits-uiat", "compute.device=nonsense"], "device 'nonsense' cannot be used"),
    "file": (["train", "--config", "missing.yaml"], "cannot read missing.yaml"),
    "recipe and file": (["train", "digits-uiat", "--config", "missing.yaml"], "give one of them"),
    "resume nothing": (["train", "--resume", "missing"], "missing is not a run folder"),
    "resume and recipe": (["train", "digits-uiat", "--resume", "missing"], "--resume takes no recipe"),
    "resume and override": (["train", "--resume", "missing", "seed=1"], "--resume takes no recipe"),
    "evaluate nothing": (["evaluate"], "RUN"),
    "evaluate a missing run": (["evaluate", "missing"], "missing is not a run folder"),
    "show a missing run": (["show", "missing"], "missing is not a run folder"),
    "missing recipe": (["recipes", "digits-uait"], "did you mean 'digits-uiat'"),
    "too many words": (["show", "a", "b"], "b"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(ask, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = ask(*words)
    assert (code, out) == (2, "")
    assert err.startswith("uiat: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


EVALUATION_MISTAKES = {
    "attack": (["--attacks", "clean,pdg-20"], "unknown attack 'pdg-20'; did you mean 'pgd-K'"),
    "none": (["--n", "0"], "--n"),
    "too many": (["--n", "100000"], "--n 100000 is more than the 539 test images of digits"),
    "number": (["--n", "ten"], "--n"),
    "weights": (["--which", "bst"], "did you mean 'best'"),
    "pixels": (["--threat", "Linf:8"], 'did you mean "8/255"'),
    "norm": (["--threat", "Lnf:8/255"], "did you mean 'Linf'"),
    "option": (["--atacks", "clean"], "--attacks"),
    "folder": (["--json", "missing/a.json"], "there is no folder missing"),
    "no file": (["--json", "/dev/null"], "not a regular file"),
    "device": (["--device", "nonsense"], "device 'nonsense' cannot be used"),
}


@pytest.mark.parametrize(("words", "says"), EVALUATION_MISTAKES.values(), ids=EVALUATION_MISTAKES)
def test_a_mistaken_evaluation_is_one_line(ask, trained, words, says):
    code, out, err = ask("evaluate", trained, *words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (trained / "evaluation.json").exists()


def test_an_existing_folder_is_never_overwritten(ask, run):
    before = {path: path.read_bytes() for path in run.iterdir()}
    code, _, err = ask("train", "digits-uiat", *TINY, "--run-dir", run)
    assert code == 2
    assert "never overwritten" in err
    assert {path: path.read_bytes() for path in run.iterdir()} == before


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


def test_damaged_weights_are_named(ask, run):
    (run / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:100])
    code, _, err = ask("evaluate", run)
    assert code == 2
    assert "best.safetensors is not a readable safetensors file" in err


def test_a_file_that_names_code_needs_consent(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import torch\nprint('imported')\n"
        "def net(num_classes, image_shape):\n"
        "    c, h, w = image_shape\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(c * h * w, num_classes))\n"
    )
    Path("run.yaml").write_text("name: own\nmodel: {name: 'mine.py:net'}\noptimisation: {epochs: 1}\n")
    code, out, err = ask("train", "--config", "run.yaml")
    assert code == 2
    assert "--own-code" in err
    assert "imported" not in out
    code, out, _ = ask("train", "--config", "run.yaml", "--own-code")
    assert code == 0
    assert "uiat evaluate runs/own --own-code" in out
    assert ask("evaluate", "runs/own", "--attacks", "clean")[0] == 2
    assert ask("evaluate", "runs/own", "--attacks", "clean", "--own-code")[0] == 0
    words = ["optimisation.epochs=1", "model.width=null", "model.name=mine.py:net"]
    assert ask("train", "digits-standard", *words)[0] == 0  # named by the user, here and now


def test_a_loss_that_is_not_finite_is_a_fault_in_one_line(ask, tmp_path):
    words = ["model.width=4", "optimisation.epochs=1", "optimisation.learning_rate=1e30", "--run-dir", tmp_path / "run"]
    code, _, err = ask("train", "digits-pgd-at", *words)
    assert code == 1
    assert "not finite" in err
    assert err.count("\n") == 1


def test_a_fault_shows_its_traceback(ask, monkeypatch):
    def broken(name):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(uiat.recipes, "get", broken)
    code, _, err = ask("recipes", "digits-uiat")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1] == "uiat: fault: RuntimeError: a fault of the program"


def test_an_interrupted_evaluation_ends_in_one_line(ask, trained, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(uiat.evaluation.checked, "evaluate", stop)
    code, _, err = ask("evaluate", trained)
    assert code == 130
    assert err == "uiat: stopped\n"


def test_a_result_that_cannot_go_to_the_run_still_goes_to_the_file(ask, run, tmp_path):
    (run / "evaluation.json").mkdir()  # stands for a folder that cannot be written to
    code, out, err = ask("evaluate", run, "--attacks", "clean", "--json", tmp_path / "a.json")
    assert code == 2
    assert "cannot write" in err
    assert re.search(r"clean +\d", out)
    assert json.loads((tmp_path / "a.json").read_text())["n"] == 539


def test_a_second_ctrl_c_says_what_is_lost(ask, tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(uiat.training.Training, "fit", stop)
    folder = tmp_path / "run"
    code, _, err = ask("train", "digits-uiat", *TINY, "--run-dir", folder)
    assert code == 130
    assert "what came after the last checkpoint is lost" in err
    assert err.endswith(f"go on with: uiat train --resume {folder}\n")


# In processes of their own.


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "a run"
    words = ["digits-uiat", *TINY, f"optimisation.epochs={EPOCHS}", "--run-dir", folder]
    training = process("train", *words)
    while not training.stdout.readline().startswith("epoch"):
        assert training.poll() is None
    training.send_signal(signal.SIGINT)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    said = re.fullmatch(r"uiat: stopped in epoch (\d+), after step (\d+) of 17, saved; go on with: (.*)\n", err)
    assert said is not None, err
    assert said[3] == f"uiat train --resume '{folder}'"
    resumed = process("train", "--resume", folder)
    out, err = resumed.communicate(timeout=60)
    assert (resumed.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"run folder: {folder}, going on in epoch {said[1]} of {EPOCHS}, after step {said[2]} of 17"
    epochs = [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("epoch")]
    assert epochs == list(range(int(said[1]), EPOCHS + 1))


def test_a_reader_that_has_seen_enough_is_no_trouble():
    listing = process("recipes")
    listing.stdout.close()
    assert listing.stderr.read() == ""
    assert listing.wait(timeout=60) == 141
    listing.stderr.close()


def test_a_terminal_sees_bars(tmp_path):
    """The whole way through a pseudo-terminal."""
    words = ["train", "digits-uiat", *TINY, "--run-dir", str(tmp_path / "run")]
    ours, theirs = pty.openpty()
    child = subprocess.Popen([*UIAT, *words], env=environment(), stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so at the end
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert child.wait(timeout=60) == 0
    text = seen.decode()
    for part in ("step 1", "images/s", "left", "adv_ce", "epoch 1/1", "everything lies in"):
        assert part in text


def test_an_ensemble_is_shown_stage_by_stage_and_the_quick_one_is_called_no_standard(ask, run):
    code, out, _ = ask("evaluate", run, "--attacks", "autoattack-quick", "--n", "20")
    assert code == 0
    assert out.index("after apgd-ce") < out.index("after apgd-t") < out.index("\n autoattack-quick ")
    assert "no substitute for autoattack" in out
    assert list(json.loads((run / "evaluation.json").read_text())["stages"]["autoattack-quick"]) == [
        "apgd-ce",
        "apgd-t",
    ]
