"""The command `uiat evaluate`."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from uiat.certify.names import BOUNDS
from uiat.cli import tables
from uiat.cli.evaluation_progress import evaluation_progress
from uiat.cli.options import takes_options
from uiat.cli.output import console, json_printed
from uiat.cli.streams import LastingStream
from uiat.cli.tables import results_table
from uiat.errors import UserError
from uiat.evaluation import EvaluationResult
from uiat.evaluation.bracket import sentence_on_until
from uiat.evaluation.result import sentence_on_calls
from uiat.experiments.evaluate import kept_state, make_record, measure, write
from uiat.experiments.evaluation_state import remove_state
from uiat.experiments.input_files import list_inputs
from uiat.experiments.options import EvaluateOptions
from uiat.experiments.output_files import LINK, check_results, check_writable
from uiat.experiments.target import EvaluationTarget, load_target
from uiat.system.atomic_files import create_file
from uiat.system.distributed import Rank, process_group
from uiat.system.log_lines import PlainFormatter

STDOUT = Path("-")  # the FILE of a --json that names none
UNSAID = {"--json": str(STDOUT), "--certify": BOUNDS}  # what options mean that are given without a value


@takes_options(EvaluateOptions)
def evaluate(**chosen: Any) -> None:
    """Measure natural and robust accuracy of any model.

    Example: uiat evaluate runs/digits-uiat --attacks clean,pgd-20,cw-20 --n 500

    Example: uiat evaluate --model net.py:make --weights net.pth --data cifar10 --threat linf:8/255 --attacks autoattack

    The result goes to evaluation.json in RUN or --out, with each image's verdict, the threat model, seed, versions,
    hardware, seconds and passes; an earlier one is kept as evaluation-1.json, -2 and so on. "worst" counts an image as
    right only if it is robust to every attack. An option that writes a FILE replaces one that it wrote before, and
    refuses any other. --resume resumes an evaluation that was stopped or killed. Under torchrun the processes share the
    images and come to the same result.
    """
    options = EvaluateOptions(**chosen)
    with json_printed(options.json == STDOUT) as give:
        _evaluate(options if options.json != STDOUT else replace(options, json=None), give)


def name_values(words: list[str]) -> list[str]:
    """Return the words of the command with the value that is meant by an option without one.

    Example:
        >>> name_values(["evaluate", "--json", "--n", "50"]), name_values(["evaluate", "--json", "a.json"])
        (['evaluate', '--json', '-', '--n', '50'], ['evaluate', '--json', 'a.json'])
    """
    named = list[str]()
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        named.append(word)
        # A folder is RUN, and no file to write to.
        if word in UNSAID and (following[:1] == "-" != following or (following and Path(following).is_dir())):
            named.append(UNSAID[word])
    return named


def _evaluate(options: EvaluateOptions, give: Callable[[Any], None]) -> None:
    outputs = {
        "--json": options.json,
        "--save-examples": options.save_examples,
        "--robustbench-json": options.robustbench_json,
        "--log-file": options.log,
    }
    results = options.out or options.run
    check_writable(outputs, inputs=list_inputs(options), results=results)
    check_results(results, is_run=options.out is None)
    with process_group() as rank:
        out = console(quiet=rank.rank > 0)
        target = load_target(options)
        with log_shown(out, verbose=options.verbose, file=options.log if rank.rank == 0 else None):
            _run(options, target, rank, out, give)


BOUND = "in the worst case so far"


def _run(
    options: EvaluateOptions, target: EvaluationTarget, rank: Rank, out: Console, give: Callable[[Any], None]
) -> None:
    """Measure, print and write down; only the first of several processes prints."""
    for note in target.notes:
        out.print(note if options.weights is None else f"{options.weights}: {note}", soft_wrap=True)
    out.print(target.title, soft_wrap=True)
    names = (*target.attacks, *(["transfer"] if target.transfer is not None else []))
    with kept_state(options, target, rank) as state:
        with evaluation_progress(names, out) as listener:
            measured = measure(options, target, rank, listener, state)
        if rank.rank == 0:
            _show_results(target, measured.result, measured.extras, out)
            give(make_record(target, measured))
            for line in write(options, target, measured):
                out.print(line, soft_wrap=True)
        remove_state(state, rank)


def _show_results(target: EvaluationTarget, result: EvaluationResult, extras: Mapping[str, Any], out: Console) -> None:
    out.print(results_table(result.to_json()))
    for line in tables.describe_classes(result.to_json()) + tables.describe_calibration(result.to_json()):
        out.print(line, soft_wrap=True)
    if result.calls:
        out.print(sentence_on_calls(result.calls), soft_wrap=True)
    if result.until:
        out.print(sentence_on_until(result.until), soft_wrap=True)
    tables.show_extras(extras, out)
    if "certified" in extras:
        attacked = result.accuracy.get("worst", result.accuracy["clean"])
        line = tables.describe_certified(extras["certified"], attacked, result.n)
        out.print(line, soft_wrap=True, markup=False)
    if "autoattack-quick" in result.accuracy:
        out.print("autoattack-quick is the first two attacks of the standard ensemble: no substitute for autoattack")
    for warning in result.warnings:
        out.print(f"warning: {warning}", soft_wrap=True)
    if result.verdict:
        out.print(f"verdict: {result.verdict}", soft_wrap=True)


class _ConsoleHandler(logging.Handler):
    """Prints log lines on a console, above its live bars; without those that the progress says in other words."""

    def __init__(self, out: Console) -> None:
        super().__init__(logging.INFO)
        self.out = out

    def emit(self, record: logging.LogRecord) -> None:
        # Warnings are shown anyway.
        if record.levelno < logging.WARNING and not record.getMessage().startswith(BOUND):
            self.out.print(record.getMessage(), soft_wrap=True)


def _file_handler(file: Path) -> logging.Handler:
    """Return a handler that adds lines to a file, never through a link, and that a full disk does not stop."""
    stream = os.fdopen(create_file(file, append=True), "a", encoding="utf-8")
    handler = _ClosingHandler(LastingStream(stream, f"the log {file}"))
    handler.setFormatter(PlainFormatter())
    return handler


class _ClosingHandler(logging.StreamHandler[LastingStream]):
    """Closes its stream with itself, as only handlers of files do."""

    def close(self) -> None:
        self.stream.flush()
        with suppress(OSError):
            self.stream.stream.close()
        super().close()


@contextmanager
def log_shown(out: Console, *, verbose: bool, file: Path | None) -> Iterator[None]:
    """Show the package's log ("robust accuracy after APGD-CE: ...") on a console, or add it to a file, or both.

    Example:
        >>> with log_shown(Console(), verbose=True, file=None):
        ...     logging.getLogger("uiat").info("initial accuracy: 90.00%")
        initial accuracy: 90.00%
    """
    logger = logging.getLogger("uiat")
    handlers: list[logging.Handler] = [_ConsoleHandler(out)] if verbose else []
    if file is not None:
        try:
            handlers.append(_file_handler(file))
        except OSError as error:
            reason = LINK if file.is_symlink() else error.strerror
            raise UserError(f"cannot write {file}: {reason}") from None
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
