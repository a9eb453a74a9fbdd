"""A process that trains and evaluates runs of a sweep for another one: `python -m uiat.experiments.worker`.

It reads a run a line as JSON from standard input and answers with lines of JSON on standard output. It ends when its
input does, and asks a run that is under way to save and stop: so it ends with the process that has started it, however
that one ends.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from uiat.config import yaml_io
from uiat.errors import Busy
from uiat.experiments.finish import finish_run
from uiat.experiments.grid import GridRun
from uiat.system.signals import interrupt_on_signal
from uiat.training.idle_settings import warned_once

STOPPED = 130
# What a worker tells of a run.
TOLD = ("status", "reason", "note", "seconds", "arithmetic", "curve")
Answer = Callable[[Mapping[str, Any]], None]


def describe_job(run: GridRun, *, evaluated: bool) -> dict[str, Any]:
    """Return a run as JSON values, for `read_job`.

    Example:
        >>> from uiat import Run
        >>> read_job(describe_job(GridRun({"seed": "1"}, Run(seed=1), Path("a")), evaluated=True))[0].run.seed
        1
    """
    job: dict[str, Any] = {"run": yaml_io.dump(run.run), "settings": dict(run.settings), "folder": str(run.folder)}
    return job | {"row": run.row, "evaluated": evaluated}


def read_job(job: Mapping[str, Any]) -> tuple[GridRun, bool]:
    """Return what `describe_job` described, and whether the run is to be evaluated."""
    settings = yaml_io.load(job["run"], source="the run of a worker", own_code=True)
    return GridRun(job["settings"], settings, Path(job["folder"]), row=job["row"]), job["evaluated"]


def main() -> int:
    """Work until there is nothing more to read; the exit code is 130 where a run was stopped."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    answer = _make_answer(out)
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(jobs,), daemon=True).start()
    try:
        with interrupt_on_signal():
            while (line := jobs.get()) is not None:
                _work(json.loads(line), answer)
    except KeyboardInterrupt:
        return STOPPED
    return 0


def _make_answer(out: TextIO) -> Answer:
    lock = threading.Lock()

    def answer(values: Mapping[str, Any]) -> None:
        with lock:
            out.write(json.dumps(values) + "\n")
            out.flush()

    return answer


def _read_lines(jobs: "queue.SimpleQueue[str | None]") -> None:
    for line in sys.stdin:
        jobs.put(line)
    jobs.put(None)
    # Of the signals that ask to save and stop, the one that may come several times.
    os.kill(os.getpid(), getattr(signal, "SIGUSR1", signal.SIGTERM))


def _work(job: Mapping[str, Any], answer: Answer) -> None:
    """Finish a run, and tell each change of it; the last answer has "end"."""
    run, evaluated = read_job(job)

    def tell(changed: GridRun) -> None:
        answer({name: getattr(changed, name) for name in TOLD})

    busy = False
    with warned_once([run.run]), _warnings_to(answer):  # of its settings, whoever has planned the sweep has warned
        try:
            finish_run(run, tell, evaluated=evaluated)
        except Busy:
            busy = True
    tell(run)
    answer({"end": True, "busy": busy})


@contextmanager
def _warnings_to(answer: Answer) -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            answer({"warning": record.getMessage()})

    handler = Handler(logging.WARNING)
    logger = logging.getLogger("uiat")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
