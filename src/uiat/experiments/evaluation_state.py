"""Choose and lock the state file of an evaluation, so that several of one run can be under way side by side."""

import glob
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from uiat.errors import Busy
from uiat.evaluation.engine.state_file import is_of_another, key_of
from uiat.runs.reader import EVALUATION_STATE_FILE
from uiat.system.distributed import Rank
from uiat.system.locks import locked


@contextmanager
def locked_state(
    folder: Path, identity: Mapping[str, Any], rank: Rank, *, resume: bool, beside_others: bool
) -> Iterator[Path]:
    """Inside, this evaluation has a state file that no other one writes to; yields its path, the same in all processes.

    It is evaluation-state.safetensors, or, where another evaluation has that one, evaluation-state-KEY.safetensors.

    Args:
        folder: the folder of the results, which exists.
        identity: what tells this evaluation from others; see `uiat.evaluation.engine.identity.identify`.
        rank: this process; the first one chooses and locks.
        resume: resume from the file that is there.
        beside_others: begin anew beside the state of another evaluation; otherwise, with `resume`, that one's file is
            chosen, to be refused by name: whoever asks to resume has mistyped something.

    Raises:
        Busy: another process has this very evaluation under way.

    Example:
        >>> import tempfile
        >>> how = {"resume": False, "beside_others": False}
        >>> with tempfile.TemporaryDirectory() as name, locked_state(Path(name), {"seed": 0}, Rank(), **how) as one:
        ...     with locked_state(Path(name), {"seed": 1}, Rank(), **how) as other:
        ...         print(one.name, other.name)
        evaluation-state.safetensors evaluation-state-a4bbadc1.safetensors
    """
    with ExitStack() as inside:

        def choose() -> Path | None:
            if not rank.first:
                return None
            return _choose(folder, identity, inside, refused=resume and not beside_others)

        chosen = rank.gather(rank.agree(choose))
        yield next(path for path in chosen if path is not None)


def _choose(folder: Path, identity: Mapping[str, Any], inside: ExitStack, *, refused: bool) -> Path:
    usual = folder / EVALUATION_STATE_FILE
    own = usual.with_stem(f"{usual.stem}-{key_of(identity)}")
    message = f"this evaluation is under way in another process, in {folder}: wait for it to end, or stop it first"
    if not Rank.paths(own):
        with suppress(Busy), ExitStack() as attempt:  # of another evaluation that is under way
            attempt.enter_context(locked(usual, message))
            if refused or not is_of_another(usual, identity):
                inside.push(attempt.pop_all())
                return usual
        if Rank.paths(usual) and not is_of_another(usual, identity):
            raise Busy(message)
    inside.enter_context(locked(own, message))
    return own


def extra_state(state: Path | None, name: str) -> Path | None:
    """Return the state file of a measurement beside the attacks, which has its own.

    Example:
        >>> extra_state(Path("evaluation-state.safetensors"), "certify-smoothing-1/4")
        PosixPath('evaluation-state-certify-smoothing-1_4.safetensors')
    """
    return None if state is None else state.with_stem(f"{state.stem}-{name.replace('/', '_')}")


def remove_state(state: Path | None, rank: Rank) -> None:
    """Delete this process's state files, once all processes are here: not before the result is kept.

    Example:
        >>> remove_state(None, Rank())
    """
    rank.gather(None)
    if state is None:
        return
    extra = list(state.parent.glob(f"{glob.escape(state.stem)}-certify-*")) if rank.first else []
    for mine in (rank.path(state), *extra):
        with suppress(OSError):
            if mine is not None:
                mine.unlink(missing_ok=True)
