"""Workers of a sweep: processes that speak lines of JSON, some of which are killed."""

import json
import os
import sys

import pytest

import uiat
from uiat.errors import Busy
from uiat.experiments import GridRun, pool
from uiat.experiments.pool import Pool, Worker, _environment, worker_pool

# A worker without torch: it answers with what the run's folder says.
SCRIPT = """
import json, os, signal, sys
for line in sys.stdin:
    job = json.loads(line)
    told = dict(status="training", reason="", note=str(os.getpid()), seconds=0.0, arithmetic="fp32", curve=[0.5])
    print(json.dumps({"warning": "as every worker says"}), flush=True)
    print(json.dumps(told), flush=True)
    tries = open(job["folder"], "a+")
    tries.write("x")
    tries.flush()
    what = job["settings"]["what"]
    if what == "dies" or (what == "dies once" and os.path.getsize(job["folder"]) == 1):
        print("no memory", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps(told | {"status": "done", "note": ""}), flush=True)
    print(json.dumps({"end": True, "busy": what == "busy"}), flush=True)
"""


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(pool, "WORKER", (sys.executable, "-c", SCRIPT))
    monkeypatch.setattr(pool, "_warned", set())
    with worker_pool(2) as opened:
        for worker in opened.workers:
            worker.command = pool.WORKER
        yield opened


def make(tmp_path, what, seed=0):
    return GridRun({"what": what}, uiat.Run(seed=seed), tmp_path / f"{what}-{seed}")


def test_runs_are_shared_out_and_each_change_is_told(workers, tmp_path, caplog):
    runs, told = [make(tmp_path, "works", seed) for seed in range(4)], []

    def finish(run):
        workers.finish(run, lambda run: told.append((run.run.seed, run.status, run.note)), evaluated=False)
        return True

    assert workers.map(finish, runs) == [True] * 4
    assert [(run.status, run.curve) for run in runs] == [("done", [0.5])] * 4
    assert {(seed, status) for seed, status, _ in told} == {(s, t) for s in range(4) for t in ("training", "done")}
    assert 1 <= len({note for *_, note in told if note}) <= 2  # processes
    assert caplog.messages == ["as every worker says"]


def test_a_run_whose_process_is_killed_is_done_by_another_once(workers, tmp_path):
    once, ever = make(tmp_path, "dies once"), make(tmp_path, "dies")
    for run in (once, ever):
        workers.finish(run, lambda run: None, evaluated=False)
        assert run.folder.read_text() == "xx"
    assert (once.status, ever.status) == ("done", "failed")
    assert ever.reason == "its process ended twice: signal 9: no memory"


def test_a_run_that_others_work_on_is_left_to_them(workers, tmp_path):
    with pytest.raises(Busy, match="is being worked on"):
        workers.finish(make(tmp_path, "busy"), lambda run: None, evaluated=False)


def test_a_worker_that_is_stopped_interrupts(tmp_path):
    worker = Worker(os.environ, (sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(130)"))
    with pytest.raises(KeyboardInterrupt):
        worker.finish(make(tmp_path, "works"), lambda run: None)
    worker.close()


def test_threads_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(pool.torch, "get_num_threads", lambda: 7)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    shares = [_environment(number, 3) for number in range(3)]
    assert [share["OMP_NUM_THREADS"] for share in shares] == ["2", "2", "2"]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["2", "5", "2"]
    assert len(Pool(3).workers) == 3


def test_no_line_of_a_job_is_lost_in_json(tmp_path):
    from uiat.experiments.worker import describe_job, read_job

    run = GridRun({"objective.weight": "2"}, uiat.Run(seed=3), tmp_path / "a", row="base")
    again, evaluated = read_job(json.loads(json.dumps(describe_job(run, evaluated=False))))
    assert (again.run, again.settings, again.folder, again.row) == (run.run, run.settings, run.folder, "base")
    assert not evaluated


def test_modules_of_the_working_folder_do_not_hide_those_of_the_standard_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random.py").write_text("raise RuntimeError('my own random.py')\n")
    (tmp_path / "beside.py").write_text("from torch import nn\n")
    (tmp_path / "net.py").write_text(
        "from beside import nn\n\n\ndef net(*, num_classes, image_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    data, validation = uiat.Data(subset=100, batch_size=50), uiat.Validation(steps=1)
    for number, name in enumerate(("net.py:net", "net:net")):  # code of one's own still is found there
        model, optimisation = uiat.Model(name=name), uiat.Optimisation(epochs=1)
        run = uiat.Run(
            model=model, data=data, objective=uiat.Standard(), optimisation=optimisation, validation=validation
        )
        with worker_pool(1) as opened:
            opened.finish(row := GridRun({}, run, tmp_path / f"run-{number}"), lambda run: None, evaluated=False)
        assert (row.status, row.reason) == ("done", "")
