"""One, two and four gloo processes train the same model; one that ends ends them all, and the run can be resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from support.paths import ROOT
from support.workers import trained, trained_recorded, trained_rivals
from uiat.runs.reader import read_history
from uiat.system.tensor_files import read_tensors

WORKERS = ROOT / "tests" / "support" / "workers.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(count: int, *words: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": ENVIRONMENT}
    return subprocess.Popen([*command, *map(str, words)], **{**pipes, **options})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes trained and resumed, and what four trained: launchers are slow to start, so both at once."""
    folder = tmp_path_factory.mktemp("results")
    for count, words in ((2, "none,gaussian,rivals,recorded,resume"), (4, "none,gaussian")):
        run = torchrun(count, WORKERS, folder, words)
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
    return folder


def test_several_processes_hold_what_one_would(results: Path) -> None:
    for start in ("none", "gaussian"):
        one = {name: value.float() for name, value in trained(start).items()}
        assert one["state.z"].abs().max() > 0
        for count in (2, 4):
            for rank in range(count):
                tensors, _ = read_tensors(results / f"{start}-{rank}-of-{count}.safetensors")
                assert tensors.keys() == one.keys()
                for name, value in tensors.items():
                    torch.testing.assert_close(value, one[name], rtol=1e-3, atol=1e-4, msg=f"{start} {count} {name}")


def test_two_processes_weigh_and_remember_as_one_does(results: Path) -> None:
    one = {name: value.float() for name, value in trained_rivals().items()}
    for rank in range(2):
        tensors, _ = read_tensors(results / f"rivals-{rank}-of-2.safetensors")
        assert tensors.keys() == one.keys()
        for name, value in tensors.items():
            if name == "memory.state.attack_memory":  # the sign of a gradient next to zero is that of its rounding
                assert (value - one[name]).abs().gt(1).float().mean() < 1e-3
            else:
                torch.testing.assert_close(value, one[name], rtol=1e-3, atol=1e-4, msg=name)
    assert one["grid.100.z"].any()
    torch.testing.assert_close(one["grid.100.z"][:10], one["grid.10.z"], rtol=1e-3, atol=1e-4)
    assert one["dkl.state.means"].std() > 0
    assert one["sat.state.visited"].sum() == 5 * 64
    assert not torch.equal(one["lbgat.state.natural.2.weight"], one["lbgat.2.weight"])


def test_two_processes_record_what_they_do_not_exchange_start_alike_and_average_gradients(results: Path) -> None:
    one = {name: value.float() for name, value in trained_recorded().items()}
    assert one["pgd-at.replays"].tolist() == [2, 2]  # of 4 and 3 steps: one settles, and one an epoch is watched
    for rank in range(2):
        tensors, _ = read_tensors(results / f"recorded-{rank}-of-2.safetensors")
        assert tensors.keys() == one.keys()
        # z is refined in the first epoch, and is the same in all processes only if they exchange its gradient.
        assert tensors.pop("one-off.replays").tolist() == [0, 2]
        for name, value in tensors.items():
            torch.testing.assert_close(value, one[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_resumes_in_another_number(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = ("digits-uiat", "optimisation.epochs=3", "model.width=4", "compute.checkpoint_steps=1")
    run = torchrun(2, "-m", "uiat", "train", *short, "--run-dir", folder)
    until = time.monotonic() + 200
    while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.1)
    workers = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    output, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "Signal 9" in output or "lost another one" in output, output
    on = subprocess.run(
        [sys.executable, "-m", "uiat", "train", "--resume", str(folder)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert on.returncode == 0, on.stderr
    assert "began in 2 processes and resumes in 1" in on.stdout + on.stderr
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_two_processes_that_resume_within_an_epoch_have_its_means(results: Path) -> None:
    (whole,), (stopped,) = (read_history(results / name) for name in ("whole", "stopped"))
    for name in ("train_adv_ce", "train_correct", "robust"):
        assert stopped[name] == whole[name], name  # to the last digit: each process goes on from its own sums


@pytest.mark.slow
def test_a_large_model_of_timm_trains_in_two_processes_with_recomputation(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    model = ("model.name=timm:test_resnet", "compute.recompute=true", "optimisation.accumulate=2")
    less = ("data.subset=64", "data.batch_size=32", "optimisation.epochs=1", "objective.attack.steps=2")
    run = torchrun(2, "-m", "uiat", "train", "digits-uiat", *model, *less, "--run-dir", folder)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
