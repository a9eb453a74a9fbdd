"""A process that keeps its memory takes no fresh pages for the passes of a network."""

import platform
import subprocess
import sys

import pytest

# Faults of pages in three passes forward and backward of a small network; in a process of its own, for good.
FAULTS = """
import resource, sys, torch, uiat
from uiat.speed.malloc import keep_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_memory(torch.device("cpu"))
model = uiat.models.build("preact-resnet8", num_classes=10, image_shape=(3, 32, 32))
x = torch.rand(128, 3, 32, 32)
def passes():
    for _ in range(3):
        model(x).sum().backward()
for _ in range(3):  # until the heap is as large as it gets
    passes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is the one that is told")
def test_kept_memory_is_used_again() -> None:
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("plain", "keep")
    )
    assert plain > 10 * kept
    assert plain > 1_000
