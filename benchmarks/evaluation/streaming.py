"""Evaluate a folder of images that does not fit into the memory that is allowed: seconds and peaks by number of images.

    python benchmarks/evaluation/streaming.py                      # 5,000 images of 224 pixels; some minutes

Makes a folder of JPEG files, and evaluates a small network on half of them and on all by the command, each in
a process of its own whose address space is limited (`ulimit -v`) to what torch takes plus --allowed MiB. The same
images as one tensor are tried under the same limit, and must not fit.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

NET = '''
from torch import nn


def make(num_classes, image_shape):
    """A small network with strides, to spend little time on each image."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, num_classes),
    )
'''
WHOLE = """
import torch, uiat
from uiat.data import as_float, open_folder, stratified_subset
data = open_folder(FOLDER, "test").decode()
x = as_float(data.images)
namespace = {}
exec(open(NET).read(), namespace)
model = namespace["make"](num_classes=10, image_shape=(3, 224, 224))
uiat.evaluate(model, x, data.labels, threat="Linf:4/255", attacks=["fgsm", "pgd-2"])
"""
BASE = "import uiat.cli, torch, torchvision, PIL.Image; print(open('/proc/self/status').read())"


def make_folder(folder: Path, count: int, side: int) -> None:
    """Write `count` JPEG files of ten classes, each a few random patches of colour."""
    random = np.random.default_rng(0)
    for i in range(count):
        path = folder / "test" / f"class{i % 10}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        patches = random.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=85)


def run(command: list[str], limit: int | None) -> tuple[int, float, int, str]:
    """Run a command with a limit on its address space in bytes; return its code, seconds, peak RSS in MiB, its text."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    start = time.perf_counter()
    child = subprocess.Popen(command, preexec_fn=limited, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    text = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    return status, time.perf_counter() - start, used.ru_maxrss // 1024, text.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--allowed", type=int, default=1_536, help="MiB of address space beyond what torch takes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, net = Path(name) / "images", Path(name) / "net.py"
        make_folder(folder, options.images, options.side)
        net.write_text(NET)
        status = run([sys.executable, "-c", BASE], None)[3]
        base = int(next(line for line in status.splitlines() if line.startswith("VmPeak")).split()[1]) // 1024
        limit = (base + options.allowed) * 2**20
        print(f"torch and the package take {base:,} MiB of addresses; limit {limit // 2**20:,} MiB (ulimit -v)")
        whole = options.images * 3 * options.side**2 * 4 // 2**20
        print(f"{options.images:,} images of {options.side} pixels are {whole:,} MiB as floats")
        for n in (options.images // 2, options.images):
            out = Path(name) / f"out{n}"
            words = ["evaluate", "--model", f"{net}:make", "--data", f"imagefolder:{folder}", "--threat", "Linf:4/255"]
            words += ["--attacks", "fgsm,pgd-2", "--n", str(n), "--device", "cpu", "--out", str(out)]
            code, seconds, peak, text = run([sys.executable, "-m", "uiat", *words], limit)
            if code:
                print(text)
                sys.exit(f"the command failed on {n} images")
            accuracy = json.loads((out / "evaluation.json").read_text())["accuracy"]
            print(f"{n:6,} images: {seconds:6.1f} s, peak {peak:,} MiB resident; {accuracy}", flush=True)
        script = WHOLE.replace("FOLDER", repr(str(folder))).replace("NET", repr(str(net)))
        code, seconds, peak, text = run([sys.executable, "-c", script], limit)
        print(f"as one tensor: {'done' if code == 0 else text.splitlines()[-1][:150]} after {seconds:.1f} s")


if __name__ == "__main__":
    main()
