"""Damage every file of run folders in every way, and see what each command makes of it.

    python benchmarks/fault_injection.py [--quick] [--seed 0] [--verbose]

Small runs on digits are made: one that has ended and was evaluated, one that was killed inside an epoch, one whose
evaluation was killed, and a sweep; and of each a second one with another seed. Each file is removed, emptied, cut at 10
places, has a bit flipped at 10 places, and is swapped with that of the other run. After each damage, on a fresh copy,
one action: train --resume, evaluate, evaluate --resume, sweep, analyse (cost, strength, overfitting), report, show,
load, load_inverse, warm_start. Allowed is

    identical   the result of the undamaged folder, to the last bit
    refused     a UserError, in a line, that names the file (or the manifest that was damaged)
    said        less than that result, where the output names the file: a run that is not evaluated any more, say

and in each case every other file's contents must still be there: nothing good is overwritten. Anything else is wrong.
Exit code 1 if anything is wrong, or ends in a traceback.
"""

import argparse
import contextlib
import hashlib
import io
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import uiat
from uiat import analyse
from uiat.cli import main as command_line
from uiat.data import notices
from uiat.errors import UserError
from uiat.experiments import EvaluateOptions, evaluate, sweep
from uiat.experiments.sweep_file import SWEEP_FILE
from uiat.experiments.target import load_target
from uiat.report import read_all, write_report
from uiat.runs.reader import EVALUATION_STATE_FILE
from uiat.system.manifest import MANIFEST_FILE, sum_of_tensors

SETTINGS = [("model.width", "4"), ("optimisation.epochs", "2"), ("data.subset", "320"), ("validation.steps", "1")]
SETTINGS += [("objective.attack.steps", "2"), ("compute.checkpoint_steps", "2"), ("compute.device", "cpu")]
SETTINGS += [("evaluation.attacks", "[clean, fgsm]"), ("evaluation.n", "16"), ("data.validation", "40")]
RECIPE = "digits-uiat"
STEPS = 7  # after which a training is killed: in its second epoch, past a checkpoint
Outcome = tuple[str, str]


class Killed(BaseException):
    """Stands for kill -9: nothing in the package catches it."""


class Killer:
    """A listener that ends a training after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, *told: Any) -> None:
        """Count a step."""
        self.left -= 1
        if self.left == 0:
            raise Killed

    def epoch(self, row: Any) -> None:
        """Do nothing."""


def base_run(seed: int) -> uiat.Run:
    return uiat.override(uiat.recipes.get(RECIPE), [*SETTINGS, ("seed", str(seed))])


def make_ended(folder: Path, seed: int) -> None:
    """A run that has ended and was evaluated."""
    uiat.train(base_run(seed), run_dir=folder)
    evaluated(folder)


def make_half(folder: Path, seed: int) -> None:
    """A run that was killed in its second epoch."""
    with contextlib.suppress(Killed):
        uiat.train(base_run(seed), run_dir=folder, listener=Killer(STEPS))


def make_half_evaluated(folder: Path, seed: int) -> None:
    """A run that has ended, whose evaluation was killed after its first stage."""
    uiat.train(base_run(seed), run_dir=folder)
    x, y = uiat.data.tensors("digits", "test")
    stages = []

    def killed(stage: str, share: float) -> None:
        stages.append(stage)
        if len(stages) == 2:
            raise Killed

    model = uiat.load(folder)
    options: dict[str, Any] = {"attacks": ["clean", "fgsm"], "state": folder / EVALUATION_STATE_FILE, "bound": killed}
    threat = base_run(seed).threat
    assert threat is not None
    with contextlib.suppress(Killed):
        uiat.evaluate(model, x[:16], y[:16], threat=threat, **options)


def make_sweep(folder: Path, seed: int) -> None:
    """A sweep of one run, ended."""
    swept(folder, seed)


def swept(folder: Path, seed: int) -> Any:
    runs = sweep(uiat.override(base_run(seed), [("name", RECIPE)]), seeds=[seed], folder=folder)
    if failed := [run.reason for run in runs if run.status == "failed"]:
        raise UserError("; ".join(failed))
    return [(run.name, run.status, dict(run.accuracy)) for run in runs]


def evaluated(folder: Path, *, resume: bool = False) -> Any:
    options = EvaluateOptions(run=folder, resume=resume, device="cpu")
    result = evaluate.run(options, load_target(options))
    return result.accuracy, result.broken_by


def resumed(folder: Path) -> Any:
    trained = uiat.resume(folder)
    rows = [{k: v for k, v in row.items() if "seconds" not in k and "images_per" not in k} for row in trained.history]
    z = None if trained.inverse is None else sum_of_tensors({"z": trained.inverse.z})
    return rows, trained.best, sum_of_tensors(trained.model.state_dict()), z


def studied(study: str) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        options = {"n": 8, "attack": "pgd-1"}
        reads = analyse.STUDIES[study].reads
        data = analyse.run(study, [folder], **{name: options[name] for name in options if name in reads}).data
        return _untimed({key: value for key, value in data.items() if key not in ("environment", "inputs")})

    return act


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if "seconds" not in str(key)}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


def reported(folder: Path) -> Any:
    read_all([folder])
    with tempfile.TemporaryDirectory() as out:
        _, text = write_report([folder], Path(out) / "report.html")
        return _said(text.read_text(), folder)


def shown(folder: Path) -> Any:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line(["show", str(folder)])
    if code == 2:
        raise UserError(err.getvalue())
    if code:
        raise RuntimeError(err.getvalue())
    return _said(out.getvalue(), folder)


def _said(text: str, folder: Path) -> str:
    """Text without the folder's own place and without the table of sizes."""
    return text.replace(str(folder), "RUN").partition("\nfiles in ")[0]


def warmed(folder: Path) -> Any:
    objective = uiat.UIAT(inverse=uiat.UniversalInverse(warm_start=str(folder), radius=0.1, step_size=0.05))
    return sum_of_tensors(objective.init(num_classes=10, image_shape=(1, 8, 8), num_examples=320).state_dict())


READERS: dict[str, Callable[[Path], Any]] = {
    "train --resume": resumed,
    "evaluate": evaluated,
    "analyse cost": studied("cost"),
    "analyse strength": studied("strength"),
    "analyse overfitting": studied("overfitting"),
    "report": reported,
    "show": shown,
    "load": lambda folder: sum_of_tensors(uiat.load(folder).state_dict()),
    "load_inverse": lambda folder: sum_of_tensors({"z": uiat.load_inverse(folder).z}),
    "warm_start": warmed,
}
# What may be replaced where the result is the right one: the folder is on its way.
WRITES = {"train --resume", "evaluate --resume", "sweep"}


@dataclass(frozen=True)
class Subject:
    """A kind of folder: how it is made, and what is done with it."""

    name: str
    make: Callable[[Path, int], None]
    actions: dict[str, Callable[[Path], Any]]


def subjects() -> list[Subject]:
    halfway = {"evaluate --resume": lambda folder: evaluated(folder, resume=True)}
    without = {name: act for name, act in READERS.items() if name != "analyse cost"}  # which needs an evaluation
    return [
        Subject("ended", make_ended, READERS),
        Subject("half-trained", make_half, without),
        Subject("half-evaluated", make_half_evaluated, halfway | {"show": shown, "report": reported}),
        Subject("sweep", make_sweep, {"sweep": lambda folder: swept(folder, 0), "show": shown, "report": reported}),
    ]


def damages(content: bytes, other: bytes | None, source: random.Random, places: int) -> Iterator[tuple[str, Any]]:
    """The damages of a file: (name, new contents), None for a file that is removed."""
    yield "removed", None
    yield "emptied", b""
    for i in range(places):
        yield "cut", content[: max(1, (i + 1) * len(content) // (places + 1))]
    for _ in range(places):
        at = source.randrange(len(content))
        yield "bit-flipped", content[:at] + bytes([content[at] ^ (1 << source.randrange(8))]) + content[at + 1 :]
    if other is not None and other != content:
        yield "swapped", other


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".partial"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Ear(logging.Handler):
    """Keeps what the package warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def attempt(act: Callable[[Path], Any], folder: Path) -> tuple[str, Any, str]:
    """Run an action: ("done", its result, warnings), ("refused", None, message) or ("traceback", None, message)."""
    ear = Ear()
    notices._said.clear()
    logging.getLogger("uiat").addHandler(ear)
    torch.manual_seed(0)
    try:
        return "done", act(folder), "\n".join(ear.lines)
    except UserError as error:
        return "refused", None, str(error)
    except Exception as error:
        return "traceback", None, f"{type(error).__name__}: {error}"
    finally:
        logging.getLogger("uiat").removeHandler(ear)


def judge(
    action: str, file: str, expected: Any, outcome: tuple[str, Any, str], before: dict[str, str], folder: Path
) -> Outcome:
    """Say what became of a damage: its kind, and why it is wrong where it is."""
    kind, result, message = outcome
    after = sums(folder)
    lost = [name for name, value in before.items() if name != file and value not in after.values()]
    if action == "sweep":  # whose record says for each run that it has failed, and why
        lost = [name for name in lost if name != SWEEP_FILE]
    names = Path(file).name in message or MANIFEST_FILE in message
    if kind == "traceback":
        return "traceback", message
    if kind == "refused":
        if lost:
            return "wrong", f"refused, and {lost} overwritten"
        return (
            ("refused", "") if names and "\n" not in message.strip() else ("wrong", f"refused without name: {message}")
        )
    same = result == expected
    if lost and not (same and action in WRITES):
        return "wrong", f"{lost} overwritten"
    if same:
        return "identical", ""
    told = isinstance(result, str) and any(Path(file).name in line for line in set(result.splitlines()))
    return ("said", "") if names or told else ("wrong", "another result without a word")


def run_trials(
    where: Path, *, places: int, stride: int, seed: int, verbose: bool = False, only: Sequence[str] = ()
) -> Counter[tuple[str, str]]:
    """Try damages, one in `stride` of them, on all kinds of folders or on some, and count what became of them."""
    counts: Counter[tuple[str, str]] = Counter()
    source, choice = random.Random(seed), random.Random(seed + 1)
    for subject in subjects():
        if only and subject.name not in only:
            continue
        here, partner, copy = (where / f"{subject.name}-{word}" for word in ("a", "b", "copy"))
        subject.make(here, 0)
        subject.make(partner, 1)
        expected = {}
        for action, act in subject.actions.items():
            fresh(here, copy)
            kind, expected[action], message = attempt(act, copy)
            assert kind == "done", (subject.name, action, message)
        for file in sorted(sums(here)):
            other = partner / file.replace("seed=0", "seed=1")
            swap = other.read_bytes() if other.is_file() else None
            for damage, content in damages((here / file).read_bytes(), swap, source, places):
                for action, act in subject.actions.items():
                    if choice.randrange(stride):
                        continue
                    fresh(here, copy)
                    (copy / file).unlink() if content is None else (copy / file).write_bytes(content)
                    before = sums(copy)
                    found, why = judge(action, file, expected[action], attempt(act, copy), before, copy)
                    counts[damage, found] += 1
                    counts[action, found] += 1
                    counts["all", found] += 1
                    if found in ("wrong", "traceback") or verbose:
                        print(f"{found}: {subject.name}, {file} {damage}, {action}: {why[:300]}", flush=True)
    return counts


def fresh(source: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)


FOUND = ("identical", "refused", "said", "wrong", "traceback")


def print_counts(counts: Counter[tuple[str, str]]) -> None:
    names = list(dict.fromkeys(name for name, _ in counts))
    print(f"\n| damage, action | tried | {' | '.join(FOUND)} |\n|---|{'---|' * (len(FOUND) + 1)}")
    for name in sorted(names, key=lambda name: (name == "all", name in READERS or name in WRITES, name)):
        row = [counts[name, found] for found in FOUND]
        print(f"| {name} | {sum(row)} | {' | '.join(map(str, row))} |")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one place of each damage, a third of the trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stride", type=int, help="only one in so many trials")
    parser.add_argument("--verbose", action="store_true", help="print every trial")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    started = time.perf_counter()
    places, stride = (1, 3) if options.quick else (10, 1)
    with tempfile.TemporaryDirectory() as where:
        counts = run_trials(
            Path(where), places=places, stride=options.stride or stride, seed=options.seed, verbose=options.verbose
        )
    print_counts(counts)
    print(f"\n{time.perf_counter() - started:.0f} s")
    return 1 if counts["all", "wrong"] or counts["all", "traceback"] else 0


if __name__ == "__main__":
    sys.exit(main())
