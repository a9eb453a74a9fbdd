"""Describe what a number depends on besides the settings: versions, hardware, threads, the commit."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from uiat.system.extras import installed_version


def describe_environment() -> dict[str, Any]:
    """Return versions, processor, devices, threads and git commit, as plain values for JSON.

    Example:
        >>> sorted(describe_environment())[:3]
        ['commit', 'cores', 'device_names']
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "uiat": installed_version("uiat"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": installed_version("torchvision"),
        "numpy": installed_version("numpy"),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": torch.multiprocessing.cpu_count(),
        "threads": torch.get_num_threads(),
        "device_names": gpus,
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def find_changes(then: Mapping[str, Any], now: Mapping[str, Any], *, on_cpu: bool) -> list[str]:
    """Return what has changed between two environments and changes the last digits of weights, in words.

    Args:
        then: what `describe_environment` said when the run began.
        now: what it says at present.
        on_cpu: True for a run on the CPU, where sums have another order with another number of threads.

    Example:
        >>> find_changes({"threads": 1, "torch": "2.9"}, {"threads": 4, "torch": "2.9"}, on_cpu=True)
        ['threads: 1 then, 4 now']
    """
    names = ("torch", "threads", "processor") if on_cpu else ("torch", "device_names")
    changed = (name for name in names if name in then and then[name] != now.get(name))
    return [f"{name}: {then[name]} then, {now.get(name)} now" for name in changed]


def _commit() -> str | None:
    """Return the commit that this package's source is tracked in, "+" after it if files are changed; None elsewhere.

    An installed package may lie inside some other repository, as in the environment of a project: that one's commit
    says nothing about it.
    """
    here = Path(__file__).resolve()
    try:
        _git(here.parent, "rev-parse", "--verify", f"HEAD:./{here.name}")  # fails where this file is not tracked
        commit = _git(here.parent, "rev-parse", "HEAD")
        package = here.parents[1]  # what else the repository holds does not matter
        return commit + ("+" if _git(package, "status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    # Variables such as GIT_DIR, which git sets for its hooks, would name another repository.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    done = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
