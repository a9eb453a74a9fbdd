"""Submit a sweep to Slurm as a job array: a script of plain commands, and nothing that a job would unpickle."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from uiat.errors import UserError
from uiat.system.atomic_files import write_text

SCRIPT = """#!/bin/bash
#SBATCH --job-name=uiat-sweep
#SBATCH --array=1-{tasks}
#SBATCH --output={folder}/slurm/%A-%a.txt
#SBATCH --signal=B:USR1@120
{options}
# A task that is about to be taken back saves, stops, and is put into the queue again; what is done is kept.
trap 'kill -USR1 "$child"; wait "$child"; scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"' USR1
cd {here}
{command} --part "$SLURM_ARRAY_TASK_ID/{tasks}" &
child=$!
wait "$child"
"""


def write_script(words: Sequence[str], *, tasks: int, options: str, folder: Path) -> str:
    """Return the script of a job array whose tasks run the parts of a sweep.

    Args:
        words: the words of `uiat sweep`, but for --part.
        tasks: number of tasks.
        options: further options of sbatch, as on its command line.
        folder: the folder of the sweep.

    Raises:
        UserError: options that are none of sbatch.

    Example:
        >>> print(write_script(["digits-uiat"], tasks=2, options="--gpus=1", folder=Path("runs/a")))
        #!/bin/bash
        ...
        #SBATCH --array=1-2
        ...
    """
    try:
        asked = shlex.split(options)
    except ValueError:
        asked = ["?"]
    if not all(re.fullmatch(r"--?[a-zA-Z][\w-]*(=[^\n]*)?", word) for word in asked):
        raise UserError(f"--sbatch takes options of sbatch written --NAME=VALUE, as in '--gpus=1', not {options!r}")
    lines = "\n".join(f"#SBATCH {shlex.quote(word)}" for word in asked)
    command = shlex.join([sys.executable, "-P", "-m", "uiat", "sweep", *words])  # -P: as the command
    here = shlex.quote(str(Path.cwd()))
    return SCRIPT.format(
        tasks=tasks, folder=shlex.quote(str(folder.absolute())), options=lines, here=here, command=command
    )


def submit(words: Sequence[str], folder: Path, *, tasks: int, options: str = "") -> str:
    """Submit a sweep as a job array; the script and the output of its tasks are in FOLDER/slurm.

    Args:
        words: the words of `uiat sweep`, but for --part.
        folder: the folder of the sweep, which all machines see.
        tasks: number of tasks of the array.
        options: further options of sbatch.

    Returns:
        The number of the job.

    Raises:
        UserError: there is no sbatch here, or it refuses the job.

    Example:
        >>> submit(["digits-uiat"], Path("runs/a"), tasks=2, options="gpu")
        Traceback (most recent call last):
        uiat.errors.UserError: --sbatch takes options of sbatch written --NAME=VALUE, as in '--gpus=1', not 'gpu'
    """
    script, path = write_script(words, tasks=tasks, options=options, folder=folder), folder / "slurm" / "sweep.sbatch"
    try:
        if path.exists() and not path.read_bytes().startswith(script[: script.index("#SBATCH --array")].encode()):
            raise UserError(f"{path} exists and was not written by uiat sweep: choose another --out, or move it away")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, script)
        done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("there is no sbatch on this machine: submit where Slurm is, or use --jobs or --part") from None
    except OSError as error:
        raise UserError(f"cannot submit the sweep: {error.strerror}") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"sbatch refused the job: {reason}")
    return done.stdout.strip().partition(";")[0]
