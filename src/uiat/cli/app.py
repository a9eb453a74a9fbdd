"""The command `uiat`: its subcommands, and how mistakes, faults and interruptions end."""

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from uiat.cli.analyse import analyse
from uiat.cli.cost import cost
from uiat.cli.evaluate import evaluate, name_json_file
from uiat.cli.export import export
from uiat.cli.output import warnings_shown
from uiat.cli.paper import paper
from uiat.cli.recipes import recipes
from uiat.cli.report import report
from uiat.cli.show import show
from uiat.cli.streams import lasting_output
from uiat.cli.sweep import sweep
from uiat.cli.train import train
from uiat.errors import Lost, NotFinite, Stopped, UserError, nearest, strip_controls
from uiat.system.environment import installed_version
from uiat.system.signals import interrupt_on_signal

OK, FAULT, MISTAKE, STOPPED, PIPE_CLOSED = 0, 1, 2, 130, 141
# Words that a command reads itself, because they name fields of a run and not options.
OPEN = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
HELP = {"help_option_names": ["-h", "--help"]}
WORK = ("train", "evaluate", "sweep", "analyse", "report", "export")  # these leave files, whoever reads what they print
COMMANDS = ("train", "evaluate", "sweep", "analyse", "report", "show", "export", "cost", "recipes", "paper")


def application() -> typer.Typer:
    """Return the commands, put together."""
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
    usage = "[RECIPE] [FIELD=VALUE]... [OPTIONS]"
    app.command("train", add_help_option=False, context_settings=OPEN, options_metavar=usage)(train)
    app.command("cost", context_settings=OPEN | HELP, options_metavar="RECIPE [FIELD=VALUE]... [OPTIONS]")(cost)
    app.command("sweep", context_settings=OPEN | HELP, options_metavar="RECIPE [FIELD=VALUES]... [OPTIONS]")(sweep)
    for function in (evaluate, analyse, report, show, export, recipes, paper):
        app.command()(function)
    return app


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
        code = _run(words)
        out.flush()
        return _end(code, words, out.lost)


def _run(words: list[str]) -> int:
    try:
        with warnings_shown():
            code = _dispatch(words)
    except SystemExit:  # of a library that meets a closed pipe
        return PIPE_CLOSED
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
    app = typer.main.get_command(application())
    words = name_json_file(words) if first == "evaluate" else words
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
