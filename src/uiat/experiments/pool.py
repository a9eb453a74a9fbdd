"""Finish the runs of a sweep in several processes of this machine, which share out its threads and GPUs."""

import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import IO

import torch

from uiat.errors import Busy
from uiat.experiments.finish import OnChange, read_result
from uiat.experiments.grid import GridRun
from uiat.experiments.worker import STOPPED, TOLD, describe_job

logger = logging.getLogger("uiat")
ATTEMPTS = 2  # at a run whose process is killed
# -P: the working folder comes not first among the places of imports, where a random.py of the user's would be
# taken for that of the standard library.
WORKER = (sys.executable, "-P", "-m", "uiat.experiments.worker")


class Worker:
    """A process that finishes one run after another; it is started with the first, and again after it was killed.

    Args:
        environment: its environment.
        command: what it runs; `uiat.experiments.worker` by default.

    Example:
        >>> Worker({}).process is None
        True
    """

    def __init__(self, environment: Mapping[str, str], command: Sequence[str] = WORKER) -> None:
        self.environment, self.command = dict(environment), command
        self.process: subprocess.Popen[str] | None = None
        self.errors: IO[bytes] | None = None
        self.stopping = False

    def finish(self, run: GridRun, on_change: OnChange, *, evaluated: bool = True) -> None:
        """Train and evaluate a run as `finish_run` does; a run whose process is killed is resumed by another, once.

        Raises:
            Busy: another process trains or evaluates this very run.
            KeyboardInterrupt: the worker was stopped.
        """
        for _ in range(ATTEMPTS):
            if (busy := self._ask(run, on_change, evaluated=evaluated)) is not None:
                break
        else:
            run.status, run.reason = "failed", f"its process ended twice: {self._end()}"
            on_change(run)
            return
        if busy:
            raise Busy(f"{run.folder} is being worked on")

    def _ask(self, run: GridRun, on_change: OnChange, *, evaluated: bool) -> bool | None:
        """Give a run to the process; returns whether others work on it, None where the process has died of it."""
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(describe_job(run, evaluated=evaluated)) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            answer = json.loads(line)
            if "end" in answer:
                return bool(answer["busy"])
            if "warning" in answer:
                _warn_once(answer["warning"])
                continue
            for name in TOLD:
                setattr(run, name, answer[name])
            if run.status == "done" and evaluated:
                run.result = read_result(run)
            on_change(run)
        if process.wait() == STOPPED or self.stopping:
            raise KeyboardInterrupt
        return None

    def _start(self) -> "subprocess.Popen[str]":
        if self.process is None or self.process.poll() is not None:
            self._forget()
            self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - of the process, as long as that
            # In a session of its own: Ctrl-C is answered once, by closing its input.
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                env=self.environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        return self.process

    def _end(self) -> str:
        """Say how the process has ended, with the last line that it wrote."""
        assert self.process is not None
        assert self.errors is not None
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {lines[-1]}" if lines else how

    def stop(self) -> None:
        """Ask the process to end: a run that is under way is saved."""
        self.stopping = True
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def close(self) -> None:
        """Wait for the process, and forget what it wrote."""
        self.stop()
        self._forget()

    def _forget(self) -> None:
        """Wait for the process, if there is one, and close what it wrote to."""
        if self.process is None:
            return
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            assert stream is not None
            with suppress(OSError):  # what could not be written to a process that had ended
                stream.close()


def _environment(number: int, jobs: int) -> dict[str, str]:
    """Return the environment of a worker: its share of the threads, and its GPU where there are several."""
    threads = str(max(1, torch.get_num_threads() // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = visible.split(",") if visible else [str(i) for i in range(count)]
    return environment if len(devices) < 2 else {**environment, "CUDA_VISIBLE_DEVICES": devices[number % len(devices)]}


@contextmanager
def worker_pool(jobs: int) -> Iterator["Pool"]:
    """Inside, there are so many workers; afterwards they have ended, and what they were at is saved.

    Example:
        >>> with worker_pool(2) as pool:
        ...     len(pool.workers)
        2
    """
    pool = Pool(jobs)
    try:
        yield pool
    finally:
        for worker in pool.workers:
            worker.stop()
        for worker in pool.workers:
            worker.close()


class Pool:
    """Workers, each of which finishes one run at a time.

    Args:
        jobs: their number.
    """

    def __init__(self, jobs: int) -> None:
        self.workers = [Worker(_environment(number, jobs)) for number in range(jobs)]
        self.free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self.workers:
            self.free.put(worker)

    def finish(self, run: GridRun, on_change: OnChange, *, evaluated: bool = True) -> None:
        """Finish a run by the next worker that is free; see `Worker.finish`."""
        worker = self.free.get()
        try:
            worker.finish(run, on_change, evaluated=evaluated)
        finally:
            self.free.put(worker)

    def map(self, do: Callable[[GridRun], bool], runs: Sequence[GridRun]) -> list[bool]:
        """Return what `do` returns for each run, as many at a time as there are workers.

        Raises:
            KeyboardInterrupt: the command was stopped; what was under way is saved.
        """
        with ThreadPoolExecutor(len(self.workers)) as threads:
            futures = [threads.submit(do, run) for run in runs]
            try:
                wait(futures)
            except BaseException:
                for future in futures:
                    future.cancel()
                for worker in self.workers:
                    worker.stop()
                raise
        return [future.result() for future in futures]


_warned: set[str] = set()
_warning = threading.Lock()


def _warn_once(message: str) -> None:
    """Pass on a warning that no worker has had before."""
    with _warning:
        if message not in _warned:
            _warned.add(message)
            logger.warning("%s", message)
