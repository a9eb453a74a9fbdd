"""Write a model in each format, and read it back as a stranger would: the logits must be those of the run's model."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.experiments.export.bundle import Bundle, largest_difference
from uiat.models.source import has_source, to_source
from uiat.system.atomic_files import write_json, write_text
from uiat.system.extras import from_extra
from uiat.system.tensor_files import read_tensors, write_tensors

WEIGHTS, SOURCE, PROGRAM, ONNX, CONFIG = "model.safetensors", "model.py", "model.pt2", "model.onnx", "config.json"
TOLERANCE = 1e-5  # relative to the largest logit
SECONDS = 300  # that reading an exported folder in another process may take

# What a stranger runs in the folder: torch and safetensors, and not this package.
_READ_SOURCE = """
import sys, torch
from safetensors.torch import load_file, save_file
sys.path.insert(0, ".")
from model import load
with torch.no_grad():
    save_file({"logits": load()(load_file("check.safetensors")["x"]).contiguous()}, "answer.safetensors")
assert "uiat" not in sys.modules
"""
_READ_PROGRAM = """
import sys, torch
from safetensors.torch import load_file, save_file
program = torch.export.load("model.pt2").module()
with torch.no_grad():
    save_file({"logits": program(load_file("check.safetensors")["x"]).contiguous()}, "answer.safetensors")
assert "uiat" not in sys.modules
"""


def write_pytorch(bundle: Bundle, folder: Path) -> float:
    """Write weights and source of a built-in model; of any other a program, since its source is not this package's.

    Returns:
        The largest difference of logits, read back in another process, relative to the largest logit.
    """
    write_json(folder / CONFIG, bundle.to_json())
    if not has_source(bundle.model):
        return write_program(bundle, folder)
    write_tensors(folder / WEIGHTS, bundle.model.state_dict(), {"format": "pt"})
    write_text(folder / SOURCE, to_source(bundle.model))
    return _read_back(bundle, folder, _READ_SOURCE)


def write_program(bundle: Bundle, folder: Path) -> float:
    """Write a torch.export program, for any batch size.

    Raises:
        UserError: torch.export cannot trace the model, or what it made computes something else.
    """
    batch = torch.export.Dim("batch", min=1)
    x = bundle.images[:2]
    try:
        program = torch.export.export(bundle.model, (x,), dynamic_shapes=({0: batch},))
        torch.export.save(program, folder / PROGRAM)
    except Exception as error:
        raise UserError(f"torch.export cannot trace the model: {_first_line(error)}") from error
    return _read_back(bundle, folder, _READ_PROGRAM)


def write_onnx(bundle: Bundle, folder: Path) -> float:
    """Write an ONNX file, input "images" (batch, C, H, W) and output "logits" (batch, K), and run it in onnxruntime.

    Raises:
        UserError: the packages are not installed, an operator of the model does not exist in ONNX, or the file
            computes something else.
    """
    with from_extra("export", "ONNX"):
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    path = folder / ONNX
    try:
        torch.onnx.export(
            bundle.model,
            (bundle.images[:2],),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:
        raise UserError(
            f"the model cannot be written as ONNX: {_find_operator(error) or _first_line(error)}"
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": bundle.images.numpy()})
    return _check(bundle, torch.from_numpy(logits), path)


def _read_back(bundle: Bundle, folder: Path, script: str) -> float:
    """Load the folder in another process without this package, and compare the logits."""
    check, answer = folder / "check.safetensors", folder / "answer.safetensors"
    write_tensors(check, {"x": bundle.images}, {})
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            raise UserError(f"the exported model cannot be read back: {_last_line(done.stderr)}")
        return _check(bundle, read_tensors(answer)[0]["logits"], folder)
    finally:
        check.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def _check(bundle: Bundle, logits: Tensor, path: Path) -> float:
    difference = largest_difference(bundle.logits, logits)
    if not difference <= TOLERANCE:
        raise UserError(f"{path.name} computes other logits than the run's model: {difference:.1e} apart")
    return difference


def _find_operator(error: BaseException | None) -> str:
    """Say which operator ONNX lacks, where that is what an error of the exporter comes from; "" for another one."""
    while error is not None:
        if found := re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error)):
            return f"ONNX has no operator for {found[1]}; --to torch-export takes any"
        error = error.__cause__
    return ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def describe_use(format: str, model: nn.Module) -> str:
    """Return the lines of Python that load an exported folder.

    Example:
        >>> describe_use("onnx", nn.Linear(1, 1)).splitlines()[0]
        'import onnxruntime'
    """
    uses: dict[str, Any] = {
        "source": "from model import load  # in this folder\n\nlogits = load()(images)",
        "program": 'import torch\n\nlogits = torch.export.load("model.pt2").module()(images)',
        "onnx": "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        '(logits,) = session.run(["logits"], {"images": images.numpy()})',
    }
    kind = {"onnx": "onnx", "torch-export": "program"}.get(format, "source" if has_source(model) else "program")
    return str(uses[kind])
