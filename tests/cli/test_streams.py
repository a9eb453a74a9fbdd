"""Output that work outlives, whatever becomes of the pipe, the disk or the terminal it goes to."""

import errno
import io
import sys

import pytest

from uiat.cli.streams import LastingStream, lasting_output


class Broken(io.StringIO):
    """A stream that fails from some write or flush on."""

    def __init__(self, error, *, at="write", after=1):
        super().__init__()
        self.error, self.at, self.left = error, at, after

    def _meet(self, at):
        if at == self.at:
            self.left -= 1
            if self.left < 0:
                raise self.error

    def write(self, text):
        self._meet("write")
        return super().write(text)

    def flush(self):
        self._meet("flush")


ERRORS = [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("at", ["write", "flush"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")))
def test_the_first_failure_is_said_once_and_later_output_goes_nowhere(capsys, error, at):
    inner = Broken(error, at=at)
    stream = LastingStream(inner, "standard output")
    for number in range(4):
        assert stream.write(f"line {number}\n") == 7
        stream.flush()
    assert stream.lost is error
    assert inner.getvalue() == ("line 0\n" if at == "write" else "line 0\nline 1\n")
    said = capsys.readouterr().err
    if isinstance(error, BrokenPipeError):
        assert said == ""
    else:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        assert said == f"uiat: warning: standard output cannot be written to: {reason}\n"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "\\xb1 \\u2026"), ("latin-1", "± \\u2026"), ("utf-8", "± …")]
)
def test_what_an_encoding_lacks_is_written_as_an_escape(encoding, shown):
    inner = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    stream = LastingStream(inner)
    stream.write("± …")
    stream.flush()
    assert inner.buffer.getvalue().decode(encoding) == shown
    assert stream.lost is None


def test_a_process_without_streams_has_some_inside(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_output() as out:
        print("nowhere")
        print("nowhere", file=sys.stderr)
        assert not sys.stdout.isatty()
    assert out.lost is None
    assert (sys.stdout, sys.stderr) == (None, None)


def test_the_streams_are_put_back(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), lasting_output():
        {}[print("seen")]
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "seen\n"
