"""Windows and macOS as far as Linux can stand in for them: without what they lack, and refusing what they refuse."""

import errno
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from uiat.config.schema import Run
from uiat.errors import Busy, UserError
from uiat.runs.folder import make_folder
from uiat.system import environment
from uiat.system.atomic_files import write_text
from uiat.system.locks import locked
from uiat.system.own_code import own_code
from uiat.system.signals import Stop, interrupt_on_signal, stop_on_signal
from uiat.training import cost


@pytest.fixture
def windows(monkeypatch):
    """No signals but two, no descriptors of folders, no rename over a folder, no unlink of a file that is open."""
    for name in ("SIGHUP", "SIGUSR1"):
        monkeypatch.delattr(signal, name)
    for name in ("O_NOFOLLOW", "O_CLOEXEC"):
        monkeypatch.delattr(os, name)
    system = SimpleNamespace(open=os.open, rename=os.rename, unlink=os.unlink)

    def refuse_folder(path, *arguments, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return system.open(path, *arguments, **options)

    def refuse_taken(source, target, **options):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(target))
        system.rename(source, target, **options)

    def refuse_lock(path, **options):
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))
        system.unlink(path, **options)

    monkeypatch.setattr(os, "open", refuse_folder)
    monkeypatch.setattr(os, "rename", refuse_taken)
    monkeypatch.setattr(os, "unlink", refuse_lock)


def test_run_folders_are_made_whole_and_never_over_another(windows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [make_folder(Run(name="a"), None) for _ in range(2)] == [Path("runs/a"), Path("runs/a-2")]
    with pytest.raises(UserError, match="exists"):
        make_folder(Run(name="a"), "runs/a")
    assert sorted(path.name for path in Path("runs").iterdir() if path.suffix != ".lock") == ["a", "a-2"]
    write_text(Path("runs/a/note.txt"), "first")
    write_text(Path("runs/a/note.txt"), "second")
    assert Path("runs/a/note.txt").read_text() == "second"


def test_a_lock_holds_and_is_released_though_its_file_stays(windows, tmp_path):
    run = tmp_path / "run"
    for _ in range(2):
        with locked(run, "in use"), pytest.raises(Busy, match="in use"), locked(run, "in use"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]


def test_ctrl_c_and_sigterm_stop_where_there_are_no_other_signals(windows):
    stop = Stop()
    with stop_on_signal(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
    with pytest.raises(KeyboardInterrupt), interrupt_on_signal():
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(platform, factor, monkeypatch):
    used = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=4096))
    monkeypatch.setitem(sys.modules, "resource", used)
    monkeypatch.setattr(sys, "platform", platform)
    assert cost._peak_bytes(torch.device("cpu")) == 4096 * factor


def test_without_resource_and_proc_nothing_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert cost._peak_bytes(torch.device("cpu")) == 0

    def refuse(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(environment.platform, "processor", lambda: "Apple M4")
    assert environment._processor() == "Apple M4"


def test_a_drive_letter_is_part_of_the_path():
    with (
        pytest.raises(UserError, match=r"no file \'C:\\\\code\\\\mine\.py\'"),
        own_code(r"C:\code\mine.py:noise", what="attack"),
    ):
        pass
