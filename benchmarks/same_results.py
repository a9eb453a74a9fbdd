"""Whether two versions of the package give the same results, to the last bit: weights, losses, verdicts, files.

    python benchmarks/same_results.py make FOLDER --data ROOT             # with the version before a change
    python benchmarks/same_results.py check FOLDER --data ROOT            # with the version after it
    python benchmarks/same_results.py check FOLDER --quick                # less than a minute, for after each commit
    python benchmarks/same_results.py check FOLDER --only half_trained,half_judged

`make` trains, stops trainings, evaluations and a sweep half-way, evaluates, analyses and reports, and writes what came
out to FOLDER/expected.json: tensors as hashes, numbers in full. `check` works on a copy of FOLDER. It trains anew, goes
on with what was left half done, and reads the old run folders with every command. It prints a table, and exits with
code 1 if anything differs. Seconds, dates, versions and hardware are not compared. ROOT holds cifar-10-batches-py.

Only the command line and the public names of the package are used. PYTHONPATH says which version that is. One thread;
the same bits can be expected of the same machine and the same torch alone.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

import uiat

EXPECTED = "expected.json"
# Of the moment or of the machine, wherever they stand in a record.
IGNORED = {"seconds", "validation_seconds", "training_seconds", "stage_seconds", "seconds_an_epoch"}
IGNORED |= {"images_per_second", "environment"}
IGNORED |= {"format", "sha256", "sums", "files"}  # which records of version 0.1 lack
FP32 = "compute.precision=fp32 compute.compile=false compute.device=cpu"
CIFAR = "cifar10-small-uiat"
RUNS = {
    "digits-uiat": "model.width=8 optimisation.epochs=40 data.subset=640",
    "digits-free-uiat": "model.width=8 optimisation.epochs=8 data.subset=640",
    "digits-uiat-one-off": "model.width=4 optimisation.epochs=3 data.subset=320 objective.inverse.epoch=1",
    CIFAR: "model.width=8 optimisation.epochs=2 data.subset=1920 data.validation=200 data.workers=0",  # 60 steps
}
SHORT = "model.width=4 optimisation.epochs=2 data.subset=320 validation.steps=3"
LEVERS = {
    "EMA, AWP": "optimisation.average=ema optimisation.average_decay=0.9 optimisation.awp=0.005",
    "AdamW, cosine, bf16": "optimisation.optimizer=adamw optimisation.schedule=cosine optimisation.warmup_epochs=0.5 "
    "optimisation.learning_rate=0.01 compute.precision=bf16",
    "cyclic, SWA, crop": "optimisation.schedule=cyclic optimisation.average=swa optimisation.accumulate=2 "
    "optimisation.clip_norm=1 data.augment=crop objective.momentum=example",
}
# Of UIAT, beside what its recipes say.
VARIANTS = """momentum=example momentum=class inverse_gradient=true kl=adversarial-inverse inverse.regulariser=feature
inverse.regulariser=feature-repulsion inverse.regulariser=logit inverse.gradient_momentum=0.5 inverse.start=sign
batchnorm=adversarial label_smoothing=0.1 attack.restarts=2 attack.loss=kl attack.threat.norm=L2 attack.threat.norm=L1
alignment=0.2"""
WIDE = """--n 8 --attacks clean,fgsm,pgd-5,pgd-5-2,cw-5,noise-3,fmn-10,apgd-ce,apgd-dlr,fab,apgd-ce-eot-2
--epsilons -0.1,0,0.1 --sweep-attack pgd-3 --norms L2:0.5,L1:4 --norms-attack apgd-ce
--corruptions fog,jpeg_compression --transfer runs/digits-free-uiat"""
# Each with its number of images.
STUDIES = """strength 32 confidence-gap 32 overfitting 32 one-off 32 ablation 32 inverse-gallery 64 misaligned 64
landscape 16 alignment 64 attention 32 cost 32"""
SWEEP = """digits-n-fgsm-uiat --seeds 0,1 --set objective.inverse.radius=0.05,0.1 --set model.width=4
--set optimisation.epochs=6 --set data.subset=640 --set evaluation.attacks=[clean,pgd-10]
--set evaluation.n=50"""
# What does not depend on where an evaluation was stopped; its passes do.
VERDICTS = ("accuracy", "stages", "broken_by", "intervals", "per_class", "calibration")
# Many command lines in one process, as starting one takes seconds.
MANY = """
import contextlib, io, json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv, code = ["uiat", *words], 0
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_module("uiat", run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
    print(json.dumps([code, out.getvalue()]), flush=True)
"""
# An evaluation, to be killed inside an attack. For it a second lasts ten minutes, so that its state is kept often.
OFTEN = """
import pathlib, sys, time
real = time.monotonic
time.monotonic = lambda: 600 * real()
import uiat
x, y = uiat.data.tensors("digits", "test")
model, state = uiat.load(sys.argv[1]), pathlib.Path(sys.argv[2])
told = lambda stage, share: print(stage, flush=True)
uiat.evaluate(model, x[:8], y[:8], threat=model.threat, attacks=["autoattack"], state=state, bound=told)
"""


@dataclass(frozen=True)
class Place:
    """Where the old folder is, in which all commands run, and where in it new folders go: "" for `make`."""

    old: Path
    new: str
    data: str | None

    @property
    def making(self) -> bool:
        """Whether the old folder is being made."""
        return self.new == ""

    def command(self, *words: str) -> list[str]:
        """A command line of the package."""
        return [sys.executable, "-m", "uiat", *words]

    def environment(self) -> dict[str, str]:
        """That of child processes: the same package, one thread, output at once."""
        package = str(Path(uiat.__file__).resolve().parents[1])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **settings, "MKL_NUM_THREADS": "1"}

    def call(self, *command: str) -> str:
        """What a process prints; a failure is an error."""
        done = subprocess.run(command, cwd=self.old, env=self.environment(), capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing said"]
            raise RuntimeError(f"exit code {done.returncode} of {' '.join(command[1:4])}: {said[-1]}")
        return done.stdout

    def uiat(self, *words: str) -> str:
        """What a command prints."""
        return self.call(*self.command(*words))

    def many(self, lines: Iterable[Iterable[str]]) -> list[str]:
        """What each of several commands prints."""
        lines = [list(words) for words in lines]
        found = [json.loads(line) for line in self.call(sys.executable, "-c", MANY, json.dumps(lines)).splitlines()]
        if failed := [" ".join(words[:2]) for words, (code, _) in zip(lines, found, strict=True) if code]:
            raise RuntimeError(f"failed: uiat {', '.join(failed)}")
        return [text for _, text in found]

    def stop(self, command: list[str], when: Callable[[str], bool], how: signal.Signals) -> None:
        """Start a process, and stop it as soon as something holds, which is told what was printed so far."""
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(command, cwd=self.old, env=self.environment(), stdout=out, stderr=out)
            while not when(_printed(out)):
                if process.poll() is not None:
                    raise RuntimeError(f"ended before it was stopped: {_printed(out)[-300:]}")
                time.sleep(0.02)
            process.send_signal(how)
            if process.wait() == 0:
                raise RuntimeError(f"came to its end although stopped: {' '.join(command)}")

    def root(self, name: str) -> list[str]:
        """The option that names the data, where a run needs it."""
        return ["--data.root", str(self.data)] if name == CIFAR else []


def _printed(out: Any) -> str:
    """A file's text, without moving the place where its other owner writes: that is shared."""
    return os.pread(out.fileno(), os.fstat(out.fileno()).st_size, 0).decode(errors="replace")


def digest(tensors: dict[str, Tensor]) -> str:
    """One hash of tensors: names, types, shapes and bits."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        value = value.detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return found.hexdigest()


def tensors_in(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def plain(record: Any) -> Any:
    """A record without what belongs to the moment or the machine."""
    if isinstance(record, dict):
        return {key: plain(value) for key, value in record.items() if key not in IGNORED}
    return [plain(value) for value in record] if isinstance(record, list) else record


def read(path: Path) -> Any:
    return plain(json.loads(path.read_text()))


def facts_of(run: Path, *, settings: bool = True) -> dict[str, Any]:
    """What a run folder holds: metrics, the hash of each file of tensors and what is said of it, the settings."""
    found: dict[str, Any] = {
        "metrics": [plain(json.loads(row)) for row in (run / "metrics.jsonl").read_text().splitlines()]
    }
    for name in ("last", "best", "inverse", "checkpoint"):
        tensors, about = tensors_in(run / f"{name}.safetensors")
        found[name] = digest(tensors)
        if name != "checkpoint":  # which holds seconds
            found[f"{name}, about"] = {key: json.loads(value) for key, value in about.items()}
    if settings:
        rows = (run / "config.yaml").read_text().splitlines()
        found["settings"] = [row for row in rows if not re.match(r"format:| *root:", row)]
    return found


def names(place: Place) -> Iterator[tuple[str, Any]]:
    """Public names, and the settings of every recipe."""
    yield "public names", sorted(uiat.__all__)
    yield "recipes", {name: uiat.dump(uiat.recipes.get(name)).splitlines() for name in uiat.recipes.names()}


def options(place: Place) -> Iterator[tuple[str, Any]]:
    """The options of every command."""
    commands = ("train", "cost", "evaluate", "sweep", "analyse", "report", "show", "recipes", "paper")
    texts = place.many([name, "--help"] for name in commands)
    found = [sorted(set(re.findall(r"--?[a-z][\w.-]*", text))) for text in texts]
    yield "options of commands", dict(zip(commands, found, strict=True))


def curve(run: uiat.Run, *, steps: int, width: int = 4, root: str | None = None) -> dict[str, Any]:
    """The loss terms of each step of a recipe, and the hashes of weights and state after them."""
    torch.manual_seed(run.seed)
    data, config = uiat.data.load(run.data.name, "train", root=root), run.optimisation
    loader = uiat.data.Loader(data, batch_size=run.data.batch_size, augment=run.data.augment, padding=1, seed=run.seed)
    shape = {"num_classes": data.num_classes, "image_shape": data.image_shape}
    model = uiat.models.build(run.model.name, width=width, **shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    more = {"awp": config.awp, "replays": config.replays, "precision": run.compute.precision}
    step = uiat.make_step(model, run.objective, optimizer, num_examples=len(data), **shape, **more)
    rows = []
    for at, batch in zip(range(steps), loader.epoch(0), strict=False):
        terms = step(batch, epoch=0 if at < steps // 2 else 1)
        rows.append({name: value.item() for name, value in terms.items()})
    return {"terms": rows, "weights": digest(model.state_dict()), "state": digest(dict(step.state.state_dict()))}


def changed(name: str, words: Iterable[str]) -> uiat.Run:
    pairs = [(field, value) for field, _, value in (word.partition("=") for word in words)]
    return uiat.override(uiat.recipes.get(name), pairs)


def steps(place: Place) -> Iterator[tuple[str, Any]]:
    """Training steps, as for one's own loop: of every digits recipe, and of UIAT in its variants."""
    digits = [name for name in uiat.recipes.names() if name.startswith("digits")]
    yield "steps, recipes of digits", {name: curve(uiat.recipes.get(name), steps=3) for name in digits}
    changes = {word: [f"objective.{word}", "objective.attack.steps=3"] for word in VARIANTS.split()}
    changes |= {"awp": ["optimisation.awp=0.01"], "bf16": ["compute.precision=bf16"]}
    runs = {name: changed("digits-uiat", words) for name, words in changes.items()}
    yield "steps, variants of UIAT", {name: curve(run, steps=3) for name, run in runs.items()}


def short(place: Place) -> Iterator[tuple[str, Any]]:
    """Short trainings from Python and from the command line; a short evaluation of an old run; what `show` prints."""
    for at, (name, words) in enumerate(LEVERS.items()):
        folder = place.old / place.new / f"short/python-{at}"
        uiat.train(changed("digits-uiat", f"{FP32} {SHORT} objective.attack.steps=3 {words}".split()), run_dir=folder)
        yield f"training, short: {name}", facts_of(folder)
    folder, out = f"{place.new}short/digits-uiat", f"{place.new}short/judged"
    train = ("train", "digits-uiat", "--run-dir", folder, *FP32.split(), *SHORT.split())
    judge = ("evaluate", "runs/digits-uiat", "--attacks", "pgd-10,cw-10,apgd-ce", "--n", "32", "--out", out)
    shown = place.many([train, judge, *(["show", f"runs/{name}"] for name in RUNS)])[2:]
    yield "training, short: digits-uiat", facts_of(place.old / folder)
    yield "evaluation, short", read(place.old / out / "evaluation.json")
    yield "old runs: show", {name: text.splitlines() for name, text in zip(RUNS, shown, strict=True)}


def reading(place: Place) -> Iterator[tuple[str, Any]]:
    """The old run folders by `uiat.load` and `uiat.load_inverse`."""
    found: dict[str, Any] = {}
    for name in RUNS:
        run, z = place.old / "runs" / name, uiat.load_inverse(place.old / "runs" / name)
        for which in ("best", "last"):
            model = uiat.load(run, which=which)
            x = torch.rand(16, *z.z.shape[1:], generator=torch.Generator().manual_seed(0))
            y = torch.arange(16) % 10
            with torch.no_grad():
                answers = {"x": model(x), "x_inv": model(z(x, y)), "z": z.z}
            found[f"{name}, {which}"] = [digest(answers), repr(model.threat), repr(z.threat)]
    yield "old runs: load, load_inverse", found


def training(place: Place) -> Iterator[tuple[str, Any]]:
    """Whole trainings, and steps on CIFAR-10."""
    for name, words in RUNS.items():
        folder = f"{place.new}runs/{name}"
        place.uiat("train", name, "--run-dir", folder, *FP32.split(), *words.split(), *place.root(name))
        yield f"training: {name}", facts_of(place.old / folder)
    for precision, count in (("fp32", 20), ("bf16", 8)):
        run = changed(CIFAR, [f"compute.precision={precision}"])
        yield f"steps: {CIFAR}, {precision}", curve(run, steps=count, root=place.data)


def judged(place: Place, name: str, n: int) -> Any:
    """The result of AutoAttack on an old run."""
    out = f"{place.new}runs/{name}"
    place.uiat("evaluate", f"runs/{name}", "--attacks", "autoattack", "--n", str(n), "--out", out, *place.root(name))
    return read(place.old / out / "evaluation.json")


def autoattack_cifar(place: Place) -> Iterator[tuple[str, Any]]:
    """AutoAttack on the run on CIFAR-10: a minute, or more."""
    yield f"evaluation, AutoAttack: {CIFAR}", judged(place, CIFAR, 16)


def evaluation(place: Place) -> Iterator[tuple[str, Any]]:
    """AutoAttack on a run of digits, and every other attack and measure on it."""
    yield "evaluation, AutoAttack: digits-uiat", judged(place, "digits-uiat", 64)
    others = ("digits-free-uiat", "digits-uiat-one-off")
    for name in others if place.making else ():  # so that there is something to analyse
        place.uiat("evaluate", f"runs/{name}", "--attacks", "pgd-10", "--n", "64")
    out = f"{place.new}wide"
    files = ("--save-examples", f"{out}.safetensors", "--robustbench-json", f"{out}.json")
    place.uiat("evaluate", "runs/digits-uiat", *WIDE.split(), "--out", out, *files)
    tensors, about = tensors_in(place.old / f"{out}.safetensors")
    yield "evaluation, other attacks and measures", read(place.old / out / "evaluation.json")
    yield "evaluation, examples and RobustBench's file", [digest(tensors), about, read(place.old / f"{out}.json")]


def half_trained(place: Place) -> Iterator[tuple[str, Any]]:
    """A run that was killed and one that was stopped, which --resume brings to the end of the uninterrupted one."""
    ways = {"digits-uiat": (signal.SIGKILL, 22), "digits-free-uiat": (signal.SIGTERM, 4)}
    for name, (how, epochs) in ways.items():
        folder = f"half/{name}"
        if place.making:
            words = ("--run-dir", folder, *FP32.split(), *RUNS[name].split(), "compute.checkpoint_steps=2")
            place.stop(place.command("train", name, *words), _trained(place.old / folder, epochs), how)
            yield f"training, resumed: {name}", facts_of(place.old / f"runs/{name}", settings=False)
        else:
            place.uiat("train", "--resume", folder)
            yield f"training, resumed: {name}", facts_of(place.old / folder, settings=False)


def _trained(folder: Path, epochs: int) -> Callable[[str], bool]:
    """Whether the checkpoint of a run is from the middle of an epoch, after so many."""

    def middle(printed: str) -> bool:
        if not (folder / "checkpoint.safetensors").exists():
            return False
        meta = json.loads(tensors_in(folder / "checkpoint.safetensors")[1]["meta"])
        return meta["epoch"] >= epochs and meta["position"] > 0

    return middle


def half_judged(place: Place) -> Iterator[tuple[str, Any]]:
    """An evaluation that was killed between two attacks, and one inside an attack; both go on."""
    words = ["evaluate", "runs/digits-uiat", "--attacks", "autoattack", "--n", "16", "--out"]
    if place.making:
        place.stop(place.command(*words, "half/judged"), lambda text: "after apgd-t" in text, signal.SIGKILL)
        place.uiat(*words, "whole/judged")
        command = [sys.executable, "-c", OFTEN, "runs/digits-uiat", "half/state.safetensors"]
        place.stop(command, lambda text: text.count("square\n") > 60, signal.SIGKILL)
    else:
        place.uiat(*words, "half/judged", "--resume")
    found = read(place.old / ("whole" if place.making else "half") / "judged/evaluation.json")
    yield "evaluation, resumed", {key: found[key] for key in VERDICTS}
    model, (x, y) = uiat.load(place.old / "runs/digits-uiat"), uiat.data.tensors("digits", "test")
    state = {} if place.making else {"state": place.old / "half/state.safetensors", "resume": True}
    result = uiat.evaluate(model, x[:8], y[:8], threat=model.threat, attacks=["autoattack"], **state)
    found = json.loads(json.dumps(result.to_json()))
    yield "evaluation, resumed inside Square", {key: found[key] for key in VERDICTS}


def half_swept(place: Place) -> Iterator[tuple[str, Any]]:
    """A sweep that was killed inside its third run, and the finished one, which is called once more."""
    if place.making:
        third = lambda text: text.count(": training") > 2 and _rows(place.old / "half/sweep") > 14  # noqa: E731
        place.stop(place.command("sweep", *SWEEP.split(), "--out", "half/sweep"), third, signal.SIGKILL)
        place.uiat("sweep", *SWEEP.split(), "--out", "sweep")
        yield "sweep, resumed", _swept(place.old / "sweep")
    else:
        place.uiat("sweep", *SWEEP.split(), "--out", "half/sweep")
        yield "sweep, resumed", _swept(place.old / "half/sweep")
        place.uiat("sweep", *SWEEP.split(), "--out", "sweep")
    yield "sweep, finished", _swept(place.old / "sweep")


def _rows(sweep: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in sweep.glob("*/metrics.jsonl"))


def _swept(sweep: Path) -> dict[str, Any]:
    runs = {path.parent.name: path.parent for path in sorted(sweep.glob("*/metrics.jsonl"))}
    found = {name: [facts_of(run), read(run / "evaluation.json")] for name, run in runs.items()}
    record = json.dumps(read(sweep / "sweep.json")).replace("half/sweep", "sweep")
    return {"runs": found, "record": json.loads(record)}


def studies(place: Place) -> Iterator[tuple[str, Any]]:
    """Every study of the old runs of digits that needs no training, and a report on all old runs."""
    for folder in ("analysis", "report"):
        shutil.rmtree(place.old / folder, ignore_errors=True)
        (place.old / folder).mkdir()
    runs, words = [f"runs/{name}" for name in RUNS], STUDIES.split()
    counts = dict(zip(words[::2], words[1::2], strict=True))
    given = {name: runs[:1] if name == "landscape" else runs[:3] for name in counts} | {"one-off": [runs[0], runs[2]]}
    more = ("--out", "analysis", "--attack", "pgd-5")
    place.many(["analyse", name, *given[name], "--n", n, *more] for name, n in counts.items())
    for name in counts:
        paths = [place.old / f"analysis/{name}.{kind}" for kind in ("svg", "png", "md")]
        files = {path.suffix: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        yield f"analyse {name}", [read(place.old / f"analysis/{name}.json"), files]
    place.uiat("report", *runs, "--out", "report/report.html", "--images", "50", "--data.root", str(place.data))
    files = [place.old / f"report/report.{kind}" for kind in ("html", "md")]
    yield "report", [path.read_text().splitlines() for path in files]


Part = Callable[[Place], Iterator[tuple[str, Any]]]
# In this order: what is read has to be there.
PARTS = (names, options, steps, training, evaluation, autoattack_cifar, short, reading)
PARTS += (half_trained, half_judged, half_swept, studies)
QUICK = (names, steps, short, reading)


def leaves(record: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a record, with its place."""
    if isinstance(record, dict | list) and record:
        pairs = record.items() if isinstance(record, dict) else enumerate(record)
        for key, value in pairs:
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, record


def compare(expected: Any, found: Any) -> tuple[int, list[str]]:
    """How many values were compared, and what differs; numbers as they are written in full."""
    one, two = ({path: json.dumps(value) for path, value in leaves(record)} for record in (expected, found))
    differ = [path for path in {**one, **two} if one.get(path) != two.get(path)]
    return len(one), [f"{path}: {one.get(path, 'nothing')} -> {two.get(path, 'nothing')}" for path in differ]


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def make(folder: Path, data: str) -> int:
    if folder.exists():
        raise SystemExit(f"{folder} is there already")
    (folder / "half").mkdir(parents=True)
    expected: dict[str, Any] = {}
    for part in PARTS:
        began = time.perf_counter()
        expected |= {what: json.loads(json.dumps(found)) for what, found in part(Place(folder, "", data))}
        print(f"{part.__name__:12} {time.perf_counter() - began:6.1f} s", flush=True)
    facts = {"torch": torch.__version__, "package": uiat.__file__, "results": expected}
    (folder / EXPECTED).write_text(json.dumps(facts, indent=1))
    return 0


def check(folder: Path, data: str | None, parts: Sequence[Part]) -> int:
    facts = json.loads((folder / EXPECTED).read_text())
    expected, wrong, seen = facts["results"], 0, set[str]()
    print(f"made by {facts['package']}, torch {facts['torch']}\nchecked: {uiat.__file__}, torch {torch.__version__}\n")
    print(f"{'what':50} {'values':>7} {'seconds':>8}  result")
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(folder, Path(name) / "old")
        place = Place(Path(name) / "old", "new/", data)
        for part in parts:
            began = time.perf_counter()
            for what, found in results(part, place):
                values, differ = (
                    (0, [said(found)]) if isinstance(found, Exception) else compare(plain(expected.get(what)), found)
                )
                result = f"DIFFERS in {len(differ)}: {'; '.join(differ[:2])}"[:600] if differ else "same"
                print(f"{what:50} {values:7} {time.perf_counter() - began:8.1f}  {result}", flush=True)
                seen.add(what)
                wrong, began = wrong + bool(differ), time.perf_counter()
    if parts == PARTS and (missing := expected.keys() - seen):
        wrong += len(missing)
        print(f"not seen: {', '.join(sorted(missing))}")
    print(f"\n{len(seen)} compared, {wrong} differ" if wrong else f"\n{len(seen)} compared, all the same")
    return int(wrong > 0)


def results(part: Part, place: Place) -> Iterator[tuple[str, Any]]:
    """What a part finds; where it fails, the error comes under its name and the rest of it is missing."""
    try:
        for what, found in part(place):
            yield what, json.loads(json.dumps(found))
    except Exception as error:  # whatever it is, the other parts go on
        yield part.__name__, error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", help="folder of CIFAR-10; of training, autoattack_cifar and studies")
    parser.add_argument("--quick", action="store_true", help="of check: short trainings, steps and reading alone")
    known = {part.__name__: part for part in PARTS}
    parser.add_argument("--only", metavar="PARTS", help=f"of check: some of {', '.join(known)}")
    asked = parser.parse_args()
    chosen = asked.only.split(",") if asked.only else list(known)
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"no such parts: {', '.join(unknown)}")
    parts = QUICK if asked.quick else tuple(known[name] for name in chosen)
    if asked.data is None and (asked.what == "make" or {training, autoattack_cifar, studies} & set(parts)):
        parser.error("--data is needed for that")
    torch.set_num_threads(1)
    data = None if asked.data is None else str(Path(asked.data).resolve())
    began, folder = time.perf_counter(), asked.folder.resolve()
    code = make(folder, data) if asked.what == "make" else check(folder, data, parts)
    spent = os.times()
    cpu = spent.user + spent.system + spent.children_user + spent.children_system
    print(f"{time.perf_counter() - began:.0f} s, {cpu:.0f} s of CPU")
    return code


if __name__ == "__main__":
    sys.exit(main())
