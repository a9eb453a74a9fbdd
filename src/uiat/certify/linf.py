"""Prove that no image within an Linf ball is misclassified, by interval and linear bounds of the logits' margins."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from uiat.certify.bounds import Interval, bound_values, linear_lower_bounds
from uiat.certify.network import Network, trace_network
from uiat.checks import Count, check_batch, check_labels, checked
from uiat.errors import UserError
from uiat.formatting import threat_record
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.shapes import Float, Int
from uiat.system.surroundings import neutral_surroundings
from uiat.threat import Linf, Threat

# Bounds are in float64 and the model rounds in its own precision. So the ball is widened by a little, and a margin has
# to exceed a part of the largest logit and several times the measured difference between the two.
OUTWARD = 1e-6  # in units of [0, 1]
RELATIVE, TIMES_MEASURED = 1e-5, 10
FARTHEST = 1e-2  # beyond it the network that was read is another one than the model
METHODS = ("ibp", "crown")
NAME = "certify"  # as progress names it


class Contradiction(RuntimeError):
    """An image was certified and broken: a fault of this program, in the bounds or in an attack."""


@dataclass(frozen=True)
class CertifiedResult:
    """Which images are proved robust, and by what.

    Args:
        threat: the threat model, such as "Linf:0.1".
        certified_by: for each image the method that proves it robust, "ibp" or "crown"; "" for none.
        margins: for each image the best lower bound found on the margin of its label over all other classes, anywhere
            in the ball; -inf for an image that is misclassified as it is.
        tolerance: what the margin has to exceed, for rounding.
        seconds: time of each method.

    Example:
        >>> CertifiedResult("Linf:0.1", ["ibp", ""], [1.0, -1.0], 1e-5, {"ibp": 0.1}).accuracy
        0.5
    """

    threat: str
    certified_by: list[str]
    margins: list[float]
    tolerance: float
    seconds: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Fraction of images that are classified rightly and proved to stay so: a lower bound on robust accuracy."""
        return sum(map(bool, self.certified_by)) / len(self.certified_by)

    def check_attacks(self, broken_by: Sequence[str]) -> None:
        """Hold the proofs against what attacks have found on the same images.

        Args:
            broken_by: for each image the attack that broke it, "" for none, as `EvaluationResult.broken_by`.

        Raises:
            Contradiction: an image is certified and broken; names the first.
            UserError: verdicts on another number of images.

        Example:
            >>> CertifiedResult("Linf:0.1", ["ibp", ""], [1.0, -1.0], 1e-5, {}).check_attacks(["pgd-20", ""])
            Traceback (most recent call last):
            uiat.certify.linf.Contradiction: image 0 is certified by ibp and broken by pgd-20 within Linf:0.1: ...
        """
        if len(broken_by) != len(self.certified_by):
            raise UserError(f"broken_by has {len(broken_by)} verdicts, on {len(self.certified_by)} certified images")
        for i, (proof, attack) in enumerate(zip(self.certified_by, broken_by, strict=True)):
            if proof and attack:
                raise Contradiction(
                    f"image {i} is certified by {proof} and broken by {attack} within {self.threat}: one of the two is "
                    "wrong, which is a fault of uiat; please report it"
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the accuracy, by method too, and the proof of each image."""
        n = len(self.certified_by)
        by_method = {"ibp": self.certified_by.count("ibp") / n, "crown": self.accuracy}
        return {
            "threat": self.threat,
            "accuracy": self.accuracy,
            "by_method": {name: share for name, share in by_method.items() if name in self.seconds},
            "certified_by": self.certified_by,
            "tolerance": self.tolerance,
            "seconds": self.seconds,
        }


@checked
@neutral_surroundings()
def certify_bounds(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    threat: Threat,
    linear: bool = True,
    batch_size: Count = 16,
    progress: Callable[[str, int, int], None] | None = None,
) -> CertifiedResult:
    """Prove images robust under Linf: no image within the ball and [0, 1] gets another label than theirs.

    Interval bounds (IBP) first, then backward linear bounds (CROWN) for what they leave open. Both are computed in
    float64, on a ball widened by 1e-6; the margin has to exceed 1e-5 of the largest logit and ten times the measured
    difference between the model's logits and those in float64, which stands for the rounding of the model itself.

    Args:
        model: maps images in [0, 1] to logits (n, k), of the layers that `trace_network` knows.
        x: images, floats in [0, 1].
        y: labels, int64.
        threat: the threat model, an `Linf`.
        linear: False for interval bounds alone, which are fast and loose.
        batch_size: images at a time.
        progress: called after every batch with ("certify", images done, of how many).

    Raises:
        UserError: a threat model other than Linf, a layer that no bounds are known of, images or labels that do not
            fit.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x = torch.rand(8, 1, 2, 2)
        >>> result = certify_bounds(model, x, model(x).argmax(1), threat=Linf(1e-4))
        >>> 0 <= result.accuracy <= 1
        True
    """
    radius = check_threat(threat)
    network = trace_network(model)
    check_batch(x, y)
    logits = _logits(model, x, batch_size=batch_size)
    check_labels(y, num_classes=logits.shape[1])
    tolerance = _tolerance(network, x, logits, batch_size=batch_size)
    margins = torch.full((len(x),), -torch.inf, dtype=torch.float64)
    proofs, seconds = [""] * len(x), dict.fromkeys(METHODS if linear else METHODS[:1], 0.0)
    right = (logits.argmax(1) == y.to(logits.device)).nonzero().flatten()
    for done in right.split(batch_size) if len(right) else ():  # a split of nothing has one empty part
        for method in seconds:
            rows = torch.tensor([i for i in done.tolist() if not proofs[i]], dtype=torch.int64)
            if not len(rows):
                continue
            start = time.perf_counter()
            found = _bound_margins(network, x[rows.to(x.device)], y[rows.to(y.device)], radius, method=method).cpu()
            margins[rows] = torch.maximum(margins[rows], found)
            for i in rows[found > tolerance].tolist():
                proofs[i] = method
            seconds[method] += time.perf_counter() - start
        if progress is not None:
            progress(NAME, int((right <= done[-1]).sum()), len(right))
    return CertifiedResult(threat_record(threat), proofs, margins.tolist(), tolerance, seconds)


def check_threat(threat: Threat) -> float:
    """Return the radius of an Linf ball.

    Raises:
        UserError: the threat model is another one.

    Example:
        >>> check_threat(Linf(0.1))
        0.1
    """
    if not isinstance(threat, Linf):
        raise UserError(f"interval and linear bounds are for Linf, not {threat.norm}")
    return float(threat.epsilon)


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor, *, batch_size: int) -> Tensor:
    device = device_of(model)
    with frozen(model):
        return torch.cat([model(part.to(device)) for part in x.split(batch_size)])


@torch.no_grad()
def _tolerance(network: Network, x: Tensor, logits: Tensor, *, batch_size: int) -> float:
    """Return what a margin has to exceed; refuse a network that is not what the model computes."""
    exact = torch.cat([network(part) for part in x.split(batch_size)])
    largest, difference = float(exact.abs().max()), float((exact - logits.to(exact)).abs().max())
    if not difference <= FARTHEST * max(largest, 1.0):
        raise UserError(
            f"the model's logits differ by {difference:.3g} from those of the layers that were read of it: what it "
            "changes in place, or does outside its layers, has no known bounds"
        )
    return max(RELATIVE * max(largest, 1.0), TIMES_MEASURED * difference)


@torch.no_grad()
def _bound_margins(network: Network, x: Tensor, y: Tensor, radius: float, *, method: str) -> Tensor:
    """Return a lower bound on the least margin of each image's label over the other classes, (b,)."""
    x, y = x.to(network.device, torch.float64), y.to(network.device)
    wide = radius + OUTWARD
    box = Interval((x - wide).clamp_min(0), (x + wide).clamp_max(1))
    known = bound_values(network, box, linear=method == "crown")
    logits, own = known[-1], nn.functional.one_hot(y, known[-1].low.shape[1]).bool()
    if method == "ibp":
        margins = logits.low[own].unsqueeze(1) - logits.high
    else:
        classes = torch.eye(own.shape[1], dtype=x.dtype, device=x.device)
        weights = classes[y].unsqueeze(1) - classes
        margins = linear_lower_bounds(network, len(network.nodes) - 1, weights, known)
    return margins.masked_fill(own, torch.inf).amin(1)
