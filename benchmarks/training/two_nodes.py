"""Train and evaluate by torchrun on two nodes on loopback, one of which is killed and comes back.

Command: python benchmarks/training/two_nodes.py [--epochs 6] [--n 200]

Two agents of torchrun, each with one process, meet at a rendezvous on 127.0.0.1 and train digits-uiat. Once the run has
two epochs, the second agent and its process are killed with SIGKILL, and an agent is started in its place. The same
happens to an evaluation by Auto-PGD. The weights and the accuracies must be those of two nodes that were left alone.
Exit code 1 if they are not.
"""

import argparse
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from uiat.system.environment import describe_environment

PATIENCE = 540.0  # seconds for one pair of nodes
FIELDS = ("model.width=8", "optimisation.schedule=onecycle", "objective.attack.steps=3", "validation.steps=3")


def node(port: int, words: list[str], log: Path, *, first: bool) -> "subprocess.Popen[bytes]":
    """Start an agent of torchrun, in a process group of its own."""
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-id=two-nodes-{port}"]
    rendezvous += [f"--rdzv-conf=is_host={str(first).lower()},last_call_timeout=5,keep_alive_interval=2"]
    options = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", *rendezvous]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "uiat", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # torch builds the shared store once, in the first round: a node of a later round waits in vain for its address.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)


def two_nodes(
    words: list[str], folder: Path, *, kill_when: Callable[[], bool] | None = None
) -> tuple[list[int], float]:
    """Run a command on two nodes; kills the second and starts it again where that is asked for.

    Returns:
        The exit codes of both, and the seconds it took.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    logs = [folder / f"node-{number}-{port}.txt" for number in (0, 1)]
    nodes = [node(port, words, log, first=log is logs[0]) for log in logs]
    try:
        if kill_when is not None:
            while not kill_when() and time.monotonic() - began < PATIENCE and nodes[0].poll() is None:
                time.sleep(0.05)
            kill(nodes[1])
            time.sleep(1.0)
            nodes[1] = node(port, words, logs[1], first=False)
        codes = [each.wait(max(1.0, PATIENCE - (time.monotonic() - began))) for each in nodes]
    finally:
        for each in nodes:
            if each.poll() is None:
                kill(each)
    return codes, time.monotonic() - began


def kill(agent: "subprocess.Popen[bytes]") -> None:
    """Kill an agent and the process that it has started, which is in a session of its own."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    inside = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    for pid in (agent.pid, *inside):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.wait()


def epochs_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def weights(run: Path) -> str:
    return hashlib.sha256((run / "last.safetensors").read_bytes()).hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--n", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {}
        for which in ("left alone", "one killed"):
            run = folder / which.replace(" ", "-")
            words = ["train", "digits-uiat", *FIELDS, f"optimisation.epochs={options.epochs}", "--run-dir", str(run)]
            killed = which == "one killed"
            trained = two_nodes(words, folder, kill_when=(lambda run=run: epochs_done(run) >= 2) if killed else None)
            words = ["evaluate", str(run), "--attacks", "apgd-ce,square", "-n", str(options.n), "--resume"]
            begun = lambda run=run: any(run.glob("evaluation-state*"))  # noqa: E731
            judged = two_nodes(words, folder, kill_when=begun if killed else None)
            record = run / "evaluation.json"
            accuracy = json.loads(record.read_text())["accuracy"] if record.exists() else None
            done = epochs_done(run)
            found[which] = (weights(run) if done else None, accuracy)
            print(
                f"{which}: training {trained[0]} in {trained[1]:.0f} s, {done} epochs, weights {found[which][0]};",
                end=" ",
            )
            print(f"evaluation {judged[0]} in {judged[1]:.0f} s, {accuracy}", flush=True)
            if any(trained[0] + judged[0]):
                for log in sorted(folder.glob("node-*.txt")):
                    print(f"--- {log.name}\n{log.read_text()[-1500:]}")
        same = found["left alone"] == found["one killed"]
        print("the same" if same else "NOT the same", describe_environment().get("cpu", ""))
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
