"""Processor time until the package can be used, beside torch's own: `python benchmarks/start_time.py [PYTHON]`.

Each command runs a few times in processes of its own, and the least time counts: user and system time, which other work
on the machine lengthens less than the clock's.
"""

import resource
import subprocess
import sys

# A training that ends where its first step would begin.
FIRST_STEP = """
import os, tempfile, uiat
from uiat.training.step import Step
Step.__call__ = lambda *_, **__: os._exit(0)
uiat.train(uiat.recipes.get("digits-uiat"), run_dir=tempfile.mkdtemp() + "/run")
"""
COMMANDS = {
    "the interpreter": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import torch, uiat, and use it": ["-c", "import torch, uiat; uiat.evaluate"],
    "the same until the first step of digits-uiat": ["-c", FIRST_STEP],
    "import torch, torch._dynamo": ["-c", "import torch, torch._dynamo"],  # which every optimiser of torch imports
    "import uiat": ["-c", "import uiat"],
    "uiat --help": ["-m", "uiat", "--help"],
}


def measure(words: list[str], *, times: int = 5) -> float:
    """Return the least processor time of a command, in seconds."""
    found = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def main() -> None:
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    for name, words in COMMANDS.items():
        print(f"{name:45} {measure([python, *words]):5.2f} s")


if __name__ == "__main__":
    main()
