"""Every form that `uiat export` writes, beside the model it came from: logits and accuracy on all test images.

    python benchmarks/exports.py RUN --data.root DATA          # needs the extra `export`

Each folder is loaded as its reader would, in a process that cannot import this package where its form needs none.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import uiat
from uiat.experiments.export import export_run
from uiat.runs.settings import read_run

# Each reads images.safetensors and writes logits.safetensors beside the exported files.
READERS = {
    "pytorch": "from model import load; logits = load().eval()(images)",
    "hf": "from model import load; logits = load().eval()(images)",
    "torch-export": "logits = torch.export.load('model.pt2').module()(images)",
    "onnx": (
        "import onnxruntime; session = onnxruntime.InferenceSession('model.onnx'); "
        "logits = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])"
    ),
}
FRAME = """
import sys; sys.modules["uiat"] = None
import torch
from safetensors.torch import load_file, save_file
images = load_file("images.safetensors")["images"]
with torch.no_grad(): {reader}
save_file({{"logits": logits.contiguous()}}, "logits.safetensors")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--data.root", dest="root", help="folder of the data sets")
    given = parser.parse_args()
    x, y = uiat.data.tensors(read_run(Path(given.run)).data.name, "test", given.root)
    with torch.no_grad():
        mine = uiat.load(given.run).eval()(x)
    print(
        f"| form | logits apart, of the largest | accuracy, % | of {len(y)} images predicted alike |\n|---|---|---|---|"
    )
    print(f"| the run | | {100 * (mine.argmax(1) == y).double().mean().item():.2f} | |")
    for form, reader in READERS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "export"
            export_run(given.run, form, out=folder)
            save_file({"images": x.contiguous()}, folder / "images.safetensors")
            subprocess.run([sys.executable, "-c", FRAME.format(reader=reader)], cwd=folder, check=True)
            logits = load_file(folder / "logits.safetensors")["logits"]
        apart = ((logits - mine).abs().max() / mine.abs().max()).item()
        accuracy, same = (
            (logits.argmax(1) == y).double().mean().item(),
            (logits.argmax(1) == mine.argmax(1)).sum().item(),
        )
        print(f"| `{form}` | {apart:.1e} | {100 * accuracy:.2f} | {same} |", flush=True)


if __name__ == "__main__":
    main()
