"""Evaluate randomised models whose robust accuracy is known exactly, and compare the figures.

    python benchmarks/evaluation/random_models.py --seeds 20
    python benchmarks/evaluation/random_models.py --seeds 20 --models centroids --references 0

Both answer at random, on digits under Linf:
- linear: digits 3 and 8 told apart by the difference of their means, with Gaussian noise on the image at every call.
  The score is normal, so the worst image of the ball is that of the model without noise, and its error a value of Phi.
- centroids: digits 3, 8 and 9 by the nearest of three centroids; every call and image draws one of three members, each
  with the centroids of some of the training images. How many members one perturbation can fool at once is found by
  linear programs, one for each choice of members and of the classes that they are to take the image for.

Exact: the accuracy that the best perturbation of each image leaves, as a mean over calls. Ours: `autoattack-rand` with
20 calls, the mean over calls and its interval; and the accuracy by the rule (18 of 20), beside its exact expectation.
autoattack-rand: the same attack with one call, as the reference counts, and the reference's own code (of the first
seeds alone with --references, which takes nine tenths of the time).
"""

import argparse
import itertools
import json
import logging
import math
import time
from pathlib import Path
from statistics import NormalDist, fmean

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import uiat
from uiat import Linf
from uiat.data import tensors
from uiat.intervals import binomial_tail
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment

RESULTS = Path(__file__).resolve().parents[1] / "results" / "random-models.json"
CALLS, WRONG, IMAGES = 20, 18, 40
RADIUS = {"linear": 0.1, "centroids": 0.08}
SIGMA = 0.3


class NoisyLinear(nn.Module):
    """Two classes by a linear score of the noisy image; a third, which nothing is, for the reference's DLR."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        means = torch.stack([x[y == k].flatten(1).mean(0) for k in (0, 1)])
        self.w = nn.Parameter(means[1] - means[0])
        self.b = nn.Parameter(-(means[1] - means[0]) @ means.mean(0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, 3) of images."""
        score = (x.flatten(1) + SIGMA * torch.randn_like(x.flatten(1))) @ self.w + self.b
        return torch.stack([-score, score, torch.full_like(score, -100)], dim=1)

    def errors(self, x: Tensor, y: Tensor, radius: float) -> list[float]:
        """Return the error of each image at the worst place of its ball."""
        w, sign = self.w.detach(), 2.0 * y - 1
        worst = (x.flatten(1) - radius * sign[:, None] * w.sign()).clamp(0, 1)
        margin = sign * (worst @ w + self.b.detach())
        return [NormalDist().cdf(-m / (SIGMA * float(w.norm()))) for m in margin.tolist()]


class RandomCentroids(nn.Module):
    """Three classes by the nearest centroid; each call and image draws one of three sets of centroids."""

    def __init__(self, x: Tensor, y: Tensor, *, members: int = 3) -> None:
        super().__init__()
        sets = [torch.rand(len(y)) < 0.1 for _ in range(members)]
        centroids = [torch.stack([x[(y == k) & of].flatten(1).mean(0) for k in range(3)]) for of in sets]
        self.centroids = nn.Parameter(torch.stack(centroids))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, 3) of images."""
        drawn = self.centroids[torch.randint(len(self.centroids), (len(x),))]
        return -10 * (x.flatten(1)[:, None] - drawn).square().sum(-1)

    def errors(self, x: Tensor, y: Tensor, radius: float) -> list[float]:
        """Return the largest fraction of members that one image of each ball fools at once."""
        members = range(len(self.centroids))
        return [
            max(k for k in range(len(members) + 1) if self._can_fool(image, label, radius, k)) / len(members)
            for image, label in zip(x.flatten(1).double().numpy(), y.tolist(), strict=True)
        ]

    def _can_fool(self, image: np.ndarray, label: int, radius: float, count: int) -> bool:
        if count == 0:
            return True
        c = self.centroids.detach().double().numpy()
        bounds = list(zip(np.maximum(image - radius, 0), np.minimum(image + radius, 1), strict=True))
        others = [k for k in range(3) if k != label]
        for chosen in itertools.combinations(range(len(c)), count):
            for targets in itertools.product(others, repeat=count):
                # ||z - c_target||^2 <= ||z - c_label||^2, which is linear in z.
                pairs = [(c[m, label], c[m, t]) for m, t in zip(chosen, targets, strict=True)]
                rows = np.stack([2 * (own - other) for own, other in pairs])
                limits = np.array([own @ own - other @ other for own, other in pairs])
                if linprog(np.zeros(len(image)), A_ub=rows, b_ub=limits, bounds=bounds, method="highs").status == 0:
                    return True
        return False


def digits(classes: tuple[int, ...], split: str) -> tuple[Tensor, Tensor]:
    """Return the images of some classes, numbered anew."""
    x, y = tensors("digits", split)
    of = torch.stack([y == k for k in classes])
    return x[of.any(0)], of.long().argmax(0)[of.any(0)]


def reference(model: nn.Module, x: Tensor, y: Tensor, radius: float, seed: int) -> float:
    """Return what the reference's own code leaves."""
    import pyautoattack

    theirs = pyautoattack.AutoAttack(model.eval(), norm="Linf", eps=radius, version="rand", seed=seed, device="cpu")
    _, found = theirs.run_standard_evaluation(x, y, batch_size=IMAGES)  # predictions of what broke each, or of itself
    return float((found == y).double().mean())


def measure(kind: str, seed: int, *, with_reference: bool) -> dict:
    """Return every figure of one model."""
    torch.manual_seed(seed)
    make, classes = (NoisyLinear, (3, 8)) if kind == "linear" else (RandomCentroids, (3, 8, 9))
    model, (x, y) = make(*digits(classes, "train")), digits(classes, "test")
    rows, radius = torch.randperm(len(y))[:IMAGES], RADIUS[kind]
    x, y = x[rows], y[rows]
    errors, start = model.errors(x, y, radius), time.process_time()
    options = {"threat": Linf(radius), "attacks": ["autoattack-rand"], "seed": seed, "selfchecks": False}
    ours = uiat.evaluate(model, x, y, calls=CALLS, wrong_calls=WRONG, **options)
    seconds, start = time.process_time() - start, time.process_time()
    once = uiat.evaluate(model, x, y, **options)
    once_seconds = time.process_time() - start
    low, high = ours.calls["intervals"]["worst"]
    return {
        "model": kind,
        "seed": seed,
        "exact": 1 - fmean(errors),
        "ours": ours.calls["accuracy"]["worst"],
        "interval": [low, high],
        "rule": ours.accuracy["worst"],
        "rule exact": fmean(1 - binomial_tail(WRONG, CALLS, e) if 0 < e < 1 else float(e == 0) for e in errors),
        "autoattack-rand": once.accuracy["worst"],
        "reference": reference(model, x, y, radius, seed) if with_reference else None,
        "cpu": [seconds, once_seconds],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--models", default=",".join(RADIUS), help="kinds, separated by commas")
    parser.add_argument("--references", type=int, help="seeds that the reference's code runs on; all by default")
    arguments = parser.parse_args()
    kinds = arguments.models.split(",")
    limit = arguments.seeds if arguments.references is None else arguments.references
    torch.set_num_threads(1)
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for kind in kinds:
        for seed in range(arguments.seeds):
            if any((row["model"], row["seed"]) == (kind, seed) for row in rows):
                continue
            rows.append(measure(kind, seed, with_reference=seed < limit))
            shown = {name: round(value, 3) for name, value in rows[-1].items() if isinstance(value, float)}
            print(kind, seed, shown, [round(s, 1) for s in rows[-1]["cpu"]], flush=True)
            write_json(RESULTS, {"environment": describe_environment(), "rows": rows})
    print_table(rows)


def print_table(rows: list[dict]) -> None:
    names = ("exact", "ours", "autoattack-rand", "reference", "rule exact", "rule")
    print("\n| model | " + " | ".join(names) + " | ours - exact | interval holds exact |\n|" + "---|" * 9)
    for kind in dict.fromkeys(row["model"] for row in rows):
        of = [row for row in rows if row["model"] == kind]
        gaps = [row["ours"] - row["exact"] for row in of]
        spread = math.sqrt(fmean(g * g for g in gaps))
        held = sum(low <= row["exact"] <= high for row in of for low, high in [row["interval"]])
        known = {name: [row[name] for row in of if row[name] is not None] for name in names}
        means = " | ".join(f"{100 * fmean(values):.1f}" if values else "-" for values in known.values())
        print(f"| {kind} | {means} | {100 * fmean(gaps):+.1f} (rms {100 * spread:.1f}) | {held} of {len(of)} |")


if __name__ == "__main__":
    main()
