"""What `uiat evaluate` does with what it judges: measures, shows, and writes down."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from uiat.cli import further
from uiat.cli.output import Stopped
from uiat.cli.subject import Asked, Subject
from uiat.cli.tables import results_table
from uiat.data import as_float
from uiat.errors import UserError
from uiat.evaluation import EvaluationResult, checked
from uiat.evaluation.robustbench import entry
from uiat.files import write_bytes, write_json, write_tensors
from uiat.processes import Share
from uiat.progress import Judging, JudgingBars, evaluation_progress

BOUND = "in the worst case so far"
FILE, STATE = "evaluation.json", "evaluation-state.safetensors"


def judge(asked: Asked, what: Subject, part: Share, out: Console) -> None:
    """Measure all that is asked for, print it, and write it down; the state file goes once the result is kept.

    Args:
        asked: the options.
        what: what is judged.
        part: this process among several; only the first prints and writes.
        out: where to print.
    """
    folder = _made(what.folder)
    for note in what.notes:
        out.print(f"{asked.weights}: {note}", soft_wrap=True)
    out.print(what.title, soft_wrap=True)
    state = None if folder is None else folder / STATE
    images = as_float(what.images.images)
    names = (*what.attacks, *(["transfer"] if what.transfer is not None else []))
    with evaluation_progress(names, out) as told:
        result = _measured(asked, what, images, state, told)
        told.close()
        more = further.measured(
            what.further,
            what.model,
            images,
            what.images.labels,
            batch_size=what.batch_size,
            seed=asked.seed,
            progress=told.progress,
            first=part.rank == 0,
        )
    if part.rank == 0:
        _show(what, result, more, out)
        _write(asked, what, result, more, out)
    part.gather(None)  # no state is deleted before the result is kept
    if state is not None and (mine := part.path(state)) is not None:
        with suppress(OSError):
            mine.unlink(missing_ok=True)


def _made(folder: Path | None) -> Path | None:
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from None
    return folder


def _measured(
    asked: Asked, what: Subject, images: Tensor, state: Path | None, told: Judging | JudgingBars
) -> EvaluationResult:
    try:
        return checked.evaluate(
            what.model,
            images,
            what.images.labels,
            threat=what.ball,
            attacks=what.attacks,
            batch_size=what.batch_size,
            seed=asked.seed,
            progress=told.progress,
            bound=told.bound,
            state=state,
            resume=asked.resume,
            keep_examples=asked.save_examples is not None,
            transfer=what.transfer,
        )
    except KeyboardInterrupt:
        if state is None or not Share.paths(state):
            raise
        raise Stopped(f"stopped; the same command with --resume goes on from {state}") from None


def _show(what: Subject, result: EvaluationResult, more: Mapping[str, Any], out: Console) -> None:
    out.print(results_table(result.to_json()))
    further.show(more, out)
    if "autoattack-quick" in result.accuracy:
        out.print("autoattack-quick is the first two attacks of the standard ensemble: no substitute for autoattack")
    for warning in result.warnings:
        out.print(f"warning: {warning}", soft_wrap=True)
    if result.verdict:
        out.print(f"verdict: {result.verdict}", soft_wrap=True)


def _write(asked: Asked, what: Subject, result: EvaluationResult, more: Mapping[str, Any], out: Console) -> None:
    """To each of the files, also where another one of them cannot be written."""
    record = what.record | result.to_json() | dict(more)
    files: list[tuple[Path, Any]] = []
    if what.folder is not None:
        if (earlier := _keep(what.folder / FILE)) is not None:
            out.print(f"kept: {earlier}, the result that was there", soft_wrap=True)
        files.append((what.folder / FILE, record))
    if asked.json is not None:
        files.append((asked.json, record))
    if asked.robustbench_json is not None:
        files.append((asked.robustbench_json, _entry(what, result)))
    if asked.save_examples is not None:
        files.append((asked.save_examples, result))
    failures = []
    for path, content in files:
        try:
            if isinstance(content, EvaluationResult):
                _write_examples(path, what, content)
            else:
                write_json(path, content)
            out.print(f"written: {path}", soft_wrap=True)
        except UserError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _keep(path: Path) -> Path | None:
    """Give a result that is in the way of a new one the next free number, as evaluation-1.json."""
    if not path.is_file():
        return None
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    kept = next(other for other in numbered if not other.exists())
    write_bytes(kept, path.read_bytes())  # and not renamed: a kill leaves a result under the usual name, too
    return kept


def _entry(what: Subject, result: EvaluationResult) -> dict[str, Any]:
    facts = what.record
    footnote = f"On the first {result.n:,} test images."
    return entry(
        result, dataset=facts["data"], name=facts.get("run", ""), architecture=facts["model"], footnote=footnote
    )


def _write_examples(path: Path, what: Subject, result: EvaluationResult) -> None:
    """The adversarial example that broke each image, or the image itself, with labels and what broke it."""
    assert result.examples is not None  # they were asked for
    broken = torch.tensor([bool(stage) for stage in result.broken_by])
    tensors = {"x_adv": result.examples, "y": what.images.labels, "broken": broken}
    facts = {"kind": "uiat.examples", "threat": result.threat, "seed": result.seed, "broken_by": result.broken_by}
    write_tensors(path, tensors, {**facts, "data": what.record["data"]})


def check_writable(paths: Sequence[Path | None]) -> None:
    """Refuse files that cannot be written before the work and not after it.

    Example:
        >>> check_writable([None, Path("missing/a.json")])
        Traceback (most recent call last):
        uiat.errors.UserError: cannot write missing/a.json: there is no folder missing
    """
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        if path is not None and path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is not a regular file")


class _Printed(logging.Handler):
    """Log lines to a console, above its live bars; without those that the progress says in other words."""

    def __init__(self, out: Console) -> None:
        super().__init__(logging.INFO)
        self.out = out

    def emit(self, record: logging.LogRecord) -> None:
        # Warnings are shown anyway.
        if record.levelno < logging.WARNING and not record.getMessage().startswith(BOUND):
            self.out.print(record.getMessage(), soft_wrap=True)


@contextmanager
def logged(out: Console, *, verbose: bool, file: Path | None) -> Iterator[None]:
    """Show what the package logs ("robust accuracy after APGD-CE: ...") on a console, or add it to a file, or both.

    Example:
        >>> with logged(Console(), verbose=True, file=None):
        ...     logging.getLogger("uiat").info("initial accuracy: 90.00%")
        initial accuracy: 90.00%
    """
    logger = logging.getLogger("uiat")
    handlers: list[logging.Handler] = [_Printed(out)] if verbose else []
    if file is not None:
        try:
            handlers.append(logging.FileHandler(file, encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror}") from None
    level = logger.level
    for handler in handlers:
        logger.addHandler(handler)
    if handlers:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
