"""The command `uiat`: its subcommands, and how mistakes, faults and interruptions end."""

import errno
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from uiat.cli.streams import LastingStream, lasting_output
from uiat.errors import Lost, NotFinite, Stopped, UserError, nearest, strip_controls
from uiat.system.extras import installed_version
from uiat.system.log_lines import warnings_shown
from uiat.system.signals import interrupt_on_signal

OK, FAULT, MISTAKE, STOPPED, PIPE_CLOSED = 0, 1, 2, 130, 141
# Words that a command reads itself, because they name fields of a run and not options.
OPEN = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
HELP = {"help_option_names": ["-h", "--help"]}
WORK = (
    "train",
    "evaluate",
    "sweep",
    "tune",
    "analyse",
    "report",
    "export",
)  # these leave files, whoever reads what they print
# What each command does, as the first line of its docstring says: `uiat --help` imports none of them, nor torch.
COMMANDS = {
    "train": "Train a classifier from a recipe or a file, or resume a run.",
    "cost": "Show what a training step costs on this machine.",
    "sweep": "Train and evaluate a recipe over settings and seeds.",
    "tune": "Search settings for high natural and robust accuracy, by Optuna.",
    "evaluate": "Measure natural and robust accuracy of any model.",
    "analyse": "Run one of the paper's studies on run folders.",
    "report": "Set runs side by side in one HTML file.",
    "show": "Show a run: settings, epochs, alarms, evaluation, files.",
    "compare": "Compare two evaluations image by image.",
    "explore": "Move images against models, in the browser.",
    "export": "Take the model of a run elsewhere.",
    "recipes": "List settings and methods, or every field of a recipe.",
    "paper": "Show where each statement of the paper is.",
}
_TYPER: dict[str, dict[str, Any]] = {  # how a command is given to typer, where that is not the usual way
    "train": {
        "add_help_option": False,
        "context_settings": OPEN,
        "options_metavar": "[RECIPE] [FIELD=VALUE]... [OPTIONS]",
    },
    "cost": {"context_settings": OPEN | HELP, "options_metavar": "RECIPE [FIELD=VALUE]... [OPTIONS]"},
    "sweep": {"context_settings": OPEN | HELP, "options_metavar": "RECIPE [FIELD=VALUES]... [OPTIONS]"},
    "tune": {"context_settings": OPEN | HELP, "options_metavar": "RECIPE [FIELD=VALUE]... [OPTIONS]"},
}


def application(chosen: str | None = None) -> typer.Typer:
    """Return the commands, put together; only the one that is chosen is imported and can be run.

    Each is the function in the module of its name.

    Args:
        chosen: name of the command; None shows what there is.
    """
    app = typer.Typer(
        name="uiat",
        help="Adversarial training of image classifiers with universal inverse adversaries.",
        epilog="Images are in [0, 1]; radii and steps are in the same units and may be written 8/255. "
        "Exit codes: 0 success, 1 fault, 2 mistake in the command, 130 stopped with Ctrl-C.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_uiat)
    for name, about in COMMANDS.items():
        if name == chosen:
            app.command(name, **_TYPER.get(name, {}))(getattr(import_module(f"uiat.cli.{name}"), name))
        else:
            app.command(name, help=about)(_not_chosen)
    return app


def _not_chosen() -> None:
    """Stand in for a command that is listed and not run."""


def _show_version(shown: bool) -> bool:
    if shown:
        version = installed_version("uiat")
        typer.echo("uiat, from a source tree that is not installed" if version is None else f"uiat {version}")
        raise typer.Exit
    return shown


def _uiat(
    shown: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, or 1 for a fault, 2 for a user's mistake, 130 for Ctrl-C.

    Args:
        argv: the words after `uiat`; those of the process by default.

    Example:
        >>> main(["recipes", "digits-uait"])
        2
    """
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with lasting_output() as out, interrupt_on_signal():
        code = _run(words, out)
        out.flush()
        return _end(code, words, out.lost)


def _run(words: list[str], out: LastingStream) -> int:
    try:
        with warnings_shown():
            code = _dispatch(words)
    except SystemExit as error:
        if out.lost is not None:  # of a library that meets a closed pipe
            return PIPE_CLOSED
        _say(f"error: a model or an attack ended the program when it was called (SystemExit: {error.code})")
        return MISTAKE
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except Stopped as stop:
        _say(str(stop))
        return STOPPED
    except Exception as error:
        return _failed(error)
    if code == STOPPED:
        _say("stopped")
    return code


def _end(code: int, words: list[str], lost: Exception | None) -> int:
    """Return the exit code of a command whose output went nowhere: work is done and kept, a listing is of no use."""
    if lost is None or code != OK or any(word in WORK for word in words[:1]):
        return code
    return PIPE_CLOSED if isinstance(lost, BrokenPipeError) else FAULT


def _dispatch(words: list[str]) -> int:
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None and first not in COMMANDS:
        raise nearest("command", first, COMMANDS)
    app = typer.main.get_command(application(first))
    if first == "evaluate":
        from uiat.cli.evaluate import name_values

        words = name_values(words)
    code = app.main(args=words, prog_name="uiat", standalone_mode=False)
    return code if isinstance(code, int) else OK


def _failed(error: Exception) -> int:
    """Say what went wrong: a line for a mistake, the traceback and a line for a fault."""
    if isinstance(error, UserError):
        _say(f"error: {error}")
        return FAULT if isinstance(error, NotFinite | Lost) else MISTAKE
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        _say(f"error: {str(error.filename)[:80]!r}... is too long for a path")
        return MISTAKE
    if isinstance(error, PermissionError) and error.filename is not None:
        _say(f"error: cannot use {error.filename}: {error.strerror}")
        return MISTAKE
    if hasattr(error, "format_message"):  # typer's own, for unknown options and values out of range
        message = error.format_message().replace("Value error, ", "")
        if message:
            _say(f"error: {message}")
        return MISTAKE
    print(strip_controls("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    _say(f"fault: {type(error).__name__}: {error}")
    return FAULT


def _say(message: str) -> None:
    """One line on standard error."""
    print(f"uiat: {' '.join(strip_controls(message).split())}", file=sys.stderr)
