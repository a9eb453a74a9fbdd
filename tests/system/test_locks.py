"""Locks: of one process at a time, gone with it however it ends, and never a file that means something by itself."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock

from uiat.errors import Busy
from uiat.system import locks
from uiat.system.locks import clear_locks, locked

HOLD = """
import os, pathlib, sys, time
from uiat.system.locks import clear_locks, locked
with locked(pathlib.Path(sys.argv[1]), ""):
    worker = os.fork() if sys.argv[2] == "fork" else None
    if worker == 0:  # it says so itself: only then has it let go of what it inherited
        print(os.getpid(), flush=True)
        time.sleep(20)
        os._exit(0)
    if worker is None:
        print(worker, flush=True)
    time.sleep(60)
"""


def holder(path, how="alone"):
    return subprocess.Popen([sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_lock_dies_with_its_process_whatever_workers_it_has(tmp_path, how):
    with holder(tmp_path / "a", how) as other:
        worker = other.stdout.readline().strip()
        with pytest.raises(Busy, match="in use"), locked(tmp_path / "a", "in use"):
            pass
        other.kill()
        other.wait()
        began = time.monotonic()
        with locked(tmp_path / "a", "in use"):
            assert time.monotonic() - began < 1
        if how == "fork":
            os.kill(int(worker), signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_one_name_does_not_lock_another_one(tmp_path):
    with locked(tmp_path / "a", ""), locked(tmp_path / "b", ""), locked(tmp_path, ""), pytest.raises(Busy, match="2nd"):
        locked(tmp_path / "a", "2nd").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_another_thread_is_kept_out_too(tmp_path):
    seen = []

    def enter():
        try:
            with locked(tmp_path / "a", "in use"):
                seen.append("entered")
        except Busy as error:
            seen.append(str(error))

    with locked(tmp_path / "a", "in use"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert seen == ["in use"]


def test_who_waits_says_so_once_and_then_has_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_LOOKS", 0.01)
    said = []
    with holder(tmp_path / "a") as other:
        other.stdout.readline()
        timer = threading.Timer(0.2, other.kill)
        timer.start()
        with locked(tmp_path / "a", "", on_wait=lambda: said.append("waiting")):
            assert said == ["waiting"]
        timer.join()


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks"), NotImplementedError(), PermissionError(13, "no")])
def test_where_nothing_can_be_locked_work_goes_on(tmp_path, monkeypatch, error):
    def unsupported(self, timeout):
        raise error

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    with locked(tmp_path / "a", ""), locked(tmp_path / "a", ""):
        assert list(tmp_path.iterdir()) == []


def test_a_file_left_by_a_kill_is_no_lock_and_a_link_is_not_followed(tmp_path):
    (tmp_path / ".a.lock").write_text("")
    with locked(tmp_path / "a", ""):
        pass
    (tmp_path / "precious").write_text("keep")
    (tmp_path / ".b.lock").symlink_to(tmp_path / "precious")
    with locked(tmp_path / "b", ""):
        pass
    assert (tmp_path / "precious").read_text() == "keep"


def test_files_of_dead_locks_are_cleared_and_those_of_others_left(tmp_path):
    for name in (".dead.lock", ".held.lock", "mine.lock", ".hidden"):
        (tmp_path / name).write_text("")
    with holder(tmp_path / "held") as other:
        other.stdout.readline()
        clear_locks(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".held.lock", ".hidden", "mine.lock"]
        other.kill()
    clear_locks(tmp_path / "missing")


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with locked(tmp_path / "missing" / "a", ""):
        assert list(tmp_path.iterdir()) == []
