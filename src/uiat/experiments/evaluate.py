"""Run an evaluation and write evaluation.json."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uiat.data import Stream
from uiat.errors import Stopped, UserError
from uiat.evaluation import EvaluationResult, evaluator
from uiat.evaluation.bracket import in_random_order, random_order
from uiat.evaluation.engine.identity import identify
from uiat.evaluation.listener import EvaluationListener, Silent
from uiat.evaluation.record import keep_earlier, sealed, write_record
from uiat.evaluation.robustbench import entry
from uiat.experiments import extras
from uiat.experiments.evaluation_state import locked_state, remove_state
from uiat.experiments.options import EvaluateOptions
from uiat.experiments.output_files import EXAMPLES
from uiat.experiments.target import EvaluationTarget
from uiat.runs.evaluations import choose
from uiat.runs.reader import EVALUATION_FILE
from uiat.system.atomic_files import ensure_folder, write_json
from uiat.system.distributed import Rank
from uiat.system.locks import locked
from uiat.system.tensor_files import write_tensors
from uiat.training.trackers import track_evaluation


@dataclass(frozen=True)
class Measured:
    """Results of an evaluation and of its extra measurements, by their names in evaluation.json."""

    result: EvaluationResult
    extras: Mapping[str, Any]


def run(options: EvaluateOptions, target: EvaluationTarget) -> EvaluationResult:
    """Evaluate in this process alone and write the files, without a word; for runs of a grid."""
    with kept_state(options, target, Rank(), beside_others=True) as state:
        measured = measure(options, target, Rank(), Silent(), state)
        for _ in write(options, target, measured):
            pass
        remove_state(state, Rank())
    return measured.result


@contextmanager
def kept_state(
    options: EvaluateOptions, target: EvaluationTarget, rank: Rank, *, beside_others: bool = False
) -> Iterator[Path | None]:
    """Inside, the evaluation has a state file of its own; None where nothing is kept. See `locked_state`.

    Raises:
        Busy: another process has this very evaluation under way.
        UserError: as for `uiat.evaluate`; a folder that cannot be made.
    """
    if target.folder is None:
        yield None
        return
    labelled = target.labelled
    if options.until is not None:  # the state is that of images in their random order
        labelled = (_shuffle(options, target), None)
    identity = identify(
        target.model,
        *labelled,
        threat=target.threat,
        attacks=target.attacks,
        seed=options.seed,
        keep_examples=options.save_examples is not None,
        transfer=target.transfer,
        calls=options.calls,
        wrong_calls=options.wrong_calls,
        fit=target.fit,
    )
    folder = ensure_folder(target.folder)
    with locked_state(folder, identity, rank, resume=options.resume, beside_others=beside_others) as state:
        yield state


def measure(
    options: EvaluateOptions, target: EvaluationTarget, rank: Rank, listener: EvaluationListener, state: Path | None
) -> Measured:
    """Run the attacks and the extra measurements; nothing is written but the state file, of `kept_state`.

    Raises:
        Stopped: Ctrl-C, with a state file to resume from.
        UserError: as for `uiat.evaluate`.
    """
    labelled = target.labelled
    is_stream = isinstance(target.images, Stream)
    extras.check_extras(target.extras, target.model, is_stream=is_stream, state=state, resume=options.resume)
    with _resumable(state):
        result = _attack(options, target, labelled, state, listener)
        listener.close()
        if result.until:
            labelled = _first(labelled, random_order(result.until["of"], seed=options.seed)[: result.n])
        more = extras.run_extras(
            target.extras,
            target.model,
            *labelled,
            batch_size=target.batch_size,
            seed=options.seed,
            progress=listener.progress,
            first=rank.rank == 0,
            broken_by=result.broken_by,
            state=state,
            resume=options.resume,
        )
    return Measured(result, more)


def _shuffle(options: EvaluateOptions, target: EvaluationTarget) -> Stream:
    x, y = target.labelled
    if not isinstance(x, Tensor) or y is None:
        raise UserError("--until takes images in random order, and these pass by once: leave it out")
    return in_random_order(x, y, seed=options.seed)[0]


def _first(labelled: tuple[Tensor | Stream, Tensor | None], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images that were evaluated."""
    x, y = labelled
    assert isinstance(x, Tensor)
    assert y is not None
    return x[rows], y[rows]


@contextmanager
def _resumable(state: Path | None) -> Iterator[None]:
    """Inside, Ctrl-C says how to resume, where there is a state file to resume from."""
    try:
        yield
    except KeyboardInterrupt:
        if state is None or not Rank.paths(state):
            raise
        raise Stopped(f"stopped; the same command with --resume resumes from {state}") from None


def _attack(
    options: EvaluateOptions,
    target: EvaluationTarget,
    labelled: tuple[Tensor | Stream, Tensor | None],
    state: Path | None,
    listener: EvaluationListener,
) -> EvaluationResult:
    return evaluator.evaluate(
        target.model,
        *labelled,
        threat=target.threat,
        attacks=target.attacks,
        batch_size=target.batch_size,
        seed=options.seed,
        progress=listener.progress,
        bound=listener.bound,
        state=state,
        resume=options.resume,
        keep_examples=options.save_examples is not None,
        transfer=target.transfer,
        class_names=target.images.classes or None,
        calls=options.calls,
        wrong_calls=options.wrong_calls,
        until=options.until,
        bracket=listener.bracket,
        fit=target.fit,
    )


def write(options: EvaluateOptions, target: EvaluationTarget, measured: Measured) -> Iterator[str]:
    """Write each of the files, also where another one of them cannot be written, and yield a line for each.

    Raises:
        UserError: the first file that could not be written, once all others are.
    """
    if target.folder is None:
        yield from _write_files(options, target, measured)
        return
    # One after another, where several evaluations of a run end at once: each keeps the result of the one before.
    with locked(target.folder / EVALUATION_FILE, "", on_wait=lambda: None):
        yield from _write_files(options, target, measured)


def _write_files(options: EvaluateOptions, target: EvaluationTarget, measured: Measured) -> Iterator[str]:
    record, failures = _make_record(target, measured), list[UserError]()
    for path, content in _list_files(options, target, measured.result, record):
        try:
            # Where the earlier result cannot be kept, the new one does not take its place.
            is_result = target.folder is not None and path == target.folder / EVALUATION_FILE
            if is_result and (earlier := keep_earlier(path)) is not None:
                yield f"kept: {earlier}, the result that was there"
            if isinstance(content, EvaluationResult):
                _write_examples(path, target, content)
            elif content is record:
                write_record(path, content)
            else:
                write_json(path, content)
        except UserError as error:
            failures.append(error)
        else:
            yield f"written: {path}"
    if target.folder is not None:
        yield from _say_result(target.folder)
        track_evaluation(target.folder, record)
    if failures:
        raise failures[0]


def _list_files(
    options: EvaluateOptions, target: EvaluationTarget, result: EvaluationResult, record: Mapping[str, Any]
) -> list[tuple[Path, Any]]:
    """List the files to write, each with what goes into it: the record, another one, or the result's examples."""
    files: list[tuple[Path | None, Any]] = [
        (None if target.folder is None else target.folder / EVALUATION_FILE, record),
        (options.json, record),
        (options.robustbench_json, None if options.robustbench_json is None else _entry(target, result)),
        (options.save_examples, result),
    ]
    return [(path, content) for path, content in files if path is not None]


def _make_record(target: EvaluationTarget, measured: Measured) -> dict[str, Any]:
    return target.record | measured.result.to_json() | _random_sample(target, measured.result) | dict(measured.extras)


def _random_sample(target: EvaluationTarget, result: EvaluationResult) -> dict[str, Any]:
    """Return which images of the test set were evaluated, in their order, where that is random."""
    if not result.until:
        return {}
    order = random_order(result.until["of"], seed=result.until["seed"])[: result.n]
    facts = {"rule": "random", "of": target.sample.of, "seed": result.until["seed"]}
    return {"sample": facts | {"index": target.sample.index[order].tolist()}}


def make_record(target: EvaluationTarget, measured: Measured) -> dict[str, Any]:
    """Return what evaluation.json holds of an evaluation."""
    return sealed(_make_record(target, measured))


def _say_result(folder: Path) -> Iterator[str]:
    """Say which evaluation counts as the result of a folder that holds several."""
    with suppress(UserError):  # an earlier one may be damaged; this one is written
        yield from (note for note in choose(folder)[1] if note.startswith("the result"))


def _entry(target: EvaluationTarget, result: EvaluationResult) -> dict[str, Any]:
    facts = target.record
    chosen = f" ({target.sample.text})" if target.sample.text else ""
    footnote = f"On {result.n:,} test images{chosen}."
    return entry(
        result,
        dataset=facts["data"],
        name=facts.get("run", ""),
        architecture=facts["model"],
        additional_data=facts.get("additional_data", False),
        footnote=footnote,
    )


def _write_examples(path: Path, target: EvaluationTarget, result: EvaluationResult) -> None:
    """Write the adversarial example that broke each image, or the image itself, with labels and attacks."""
    assert not isinstance(target.images, Stream)  # `choose_images` refuses to keep examples of one
    assert result.examples is not None  # `keep_examples` asks for them
    broken = torch.tensor([bool(stage) for stage in result.broken_by])
    tensors = {"x_adv": result.examples, "y": target.images.labels, "broken": broken, "index": target.sample.index}
    facts = {"kind": EXAMPLES, "threat": result.threat, "seed": result.seed, "broken_by": result.broken_by}
    write_tensors(path, tensors, {**facts, "data": target.record["data"]})
