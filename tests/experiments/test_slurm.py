"""A sweep as a job array, with an sbatch of our own that runs the tasks one after another."""

import os
import stat
from pathlib import Path

import pytest

from uiat import UserError
from uiat.experiments import slurm
from uiat.experiments.slurm import submit, write_script

SBATCH = """#!/bin/bash
echo "$@" > {log}
script="${{@: -1}}"
bash -n "$script" || exit 1
for task in 1 2; do SLURM_ARRAY_TASK_ID=$task bash "$script" >> {log}; done
echo "77;cluster"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with an sbatch in front of the path, and a python that says how it is called: the log."""
    log, tools = tmp_path / "log", tmp_path / "bin"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH.format(log=log)), ("python", '#!/bin/bash\necho "$@"\n')):
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm.sys, "executable", str(tools / "python"))
    monkeypatch.chdir(tmp_path)
    return log


def test_each_task_runs_its_part(cluster, tmp_path):
    job = submit(["digits-uiat", "objective.weight=1,2"], Path("a b"), tasks=2, options="--gpus=1 --time=4:00:00")
    assert job == "77"
    said = cluster.read_text().splitlines()
    assert said == [
        "--parsable a b/slurm/sweep.sbatch",
        "-P -m uiat sweep digits-uiat objective.weight=1,2 --part 1/2",
        "-P -m uiat sweep digits-uiat objective.weight=1,2 --part 2/2",
    ]
    script = (tmp_path / "a b/slurm/sweep.sbatch").read_text()
    assert "#SBATCH --array=1-2\n" in script
    assert "#SBATCH --gpus=1\n#SBATCH --time=4:00:00\n" in script


def test_a_script_of_a_sweep_is_written_again_and_no_other(cluster, tmp_path):
    for tasks in (1, 2):
        submit([], tmp_path, tasks=tasks)
    script = tmp_path / "slurm" / "sweep.sbatch"
    assert "--array=1-2" in script.read_text()
    script.write_text("#!/bin/bash\nmine\n")
    with pytest.raises(UserError, match="exists and was not written by uiat sweep"):
        submit([], tmp_path, tasks=1)
    assert script.read_text() == "#!/bin/bash\nmine\n"


def test_what_cannot_be_submitted_is_one_line(cluster, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="takes options of sbatch"):
        write_script([], tasks=1, options="gpu; rm -r /", folder=tmp_path)
    (tmp_path / "bin/sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2\nexit 3\n")
    with pytest.raises(UserError, match="sbatch refused the job: invalid partition"):
        submit([], tmp_path, tasks=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on this machine"):
        submit([], tmp_path, tasks=1)
