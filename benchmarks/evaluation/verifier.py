"""Does a verifier agree with the attacks about which images are certainly broken, and which cannot be?

    pip install maraboupy && python benchmarks/evaluation/verifier.py RUN --n 60 --own-code

The run, of a tiny ReLU network trained against Linf, is exported by `uiat export --to onnx --vnnlib N`, and Marabou
reads the very files: the ONNX network and a VNN-LIB property for each image that the network has right. "sat" is an
adversarial example, "unsat" a proof that there is none. The same images are attacked by PGD-100-10 and the standard
ensemble. Where an attack breaks an image the verifier must say sat; where it says unsat, no attack may break it; and
each counterexample of the verifier is held against the run's own model and the ball.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import uiat
from uiat.data import as_float
from uiat.experiments.export import export_run
from uiat.experiments.target import evaluated_images
from uiat.runs.settings import read_evaluated

INPUT = re.compile(r"x(\d+) = (\S+)")
SLACK = 1e-5  # the verifier computes in float64 with a tolerance, the model in float32


def verify(network: Path, query: Path, *, seconds: int) -> tuple[str, torch.Tensor | None]:
    """Return Marabou's answer on a property ("sat", "unsat", "TIMEOUT"), and the inputs of a counterexample."""
    words = [sys.executable, "-W", "ignore", "-m", "maraboupy", network, query]
    limits = ["--timeout", str(seconds), "--verbosity", "0"]
    done = subprocess.run([*map(str, words), *limits], capture_output=True, text=True, check=False)
    answer = next((line for line in done.stdout.split() if line in ("sat", "unsat", "TIMEOUT")), "error")
    values = [float(value) for _, value in sorted((int(i), v) for i, v in INPUT.findall(done.stdout))]
    return answer, torch.tensor(values) if answer == "sat" else None


def is_adversarial(model: torch.nn.Module, image: torch.Tensor, label: int, found: torch.Tensor, radius: float) -> bool:
    """True if a counterexample lies in the ball and the model itself does not prefer the label there."""
    with torch.no_grad():
        logits = model(found.view_as(image)[None])[0]
    others = logits[torch.arange(len(logits)) != label]
    inside = (found.view_as(image) - image).abs().max() <= radius + SLACK
    return bool(inside and found.min() >= -SLACK and found.max() <= 1 + SLACK and others.max() >= logits[label] - SLACK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=60, help="of the verifier, an image")
    parser.add_argument("--own-code", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings, threat = read_evaluated(given.run)
    assert threat is not None
    images = evaluated_images(settings, n=given.n, root=given.data)
    x, y = as_float(images.images), images.labels
    model = uiat.load(given.run, own_code=given.own_code)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "export"
        done = export_run(given.run, "onnx", out=out, root=given.data, own_code=given.own_code, vnnlib=given.n)
        queries = sorted((out / "vnnlib").iterdir())
        assert len(queries) == done.properties
        chosen = torch.tensor([int(query.stem.removeprefix("image-")) for query in queries])
        start = time.perf_counter()
        answers = [verify(out / "model.onnx", query, seconds=given.seconds) for query in queries]
        verified = time.perf_counter() - start
    start = time.perf_counter()
    result = uiat.evaluate(
        model, x[chosen], y[chosen], threat=threat, attacks=["pgd-100-10", "autoattack"], selfchecks=False
    )
    attacked = time.perf_counter() - start
    broken = ["broken" if stage else "robust" for stage in result.broken_by]
    counts = Counter(zip((answer for answer, _ in answers), broken, strict=True))
    print(f"{given.run.name}: {len(queries)} images that the model has right, of the first {given.n}; {threat}")
    print("| verifier | attacks: broken | attacks: robust |\n|---|---|---|")
    for answer in ("sat", "unsat", "TIMEOUT", "error"):
        print(f"| {answer} | {counts[answer, 'broken']} | {counts[answer, 'robust']} |")
    found = [(int(i), values) for i, (_, values) in zip(chosen, answers, strict=True) if values is not None]
    real = sum(is_adversarial(model, x[i], int(y[i]), values, float(threat.epsilon)) for i, values in found)
    print(f"counterexamples of the verifier that the model confirms: {real} of {len(found)}")
    print(f"seconds: verifier {verified:.1f}, attacks {attacked:.1f}")
    contradictions = counts["unsat", "broken"]
    print("agrees" if not contradictions and real == len(found) else f"{contradictions} contradictions")


if __name__ == "__main__":
    main()
