"""The targeted Fast Adaptive Boundary attack (Croce & Hein 2020): the shortest way over the boundary to one class.

"Minimally distorted adversarial examples with a fast adaptive boundary attack", in its targeted version, FAB-T. It does
not climb a loss in a ball: it walks along the boundary towards the image, and remembers how near it came.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uiat.attacks.apgd_loss import count_attempts
from uiat.attacks.boundary import nearest_boundary, onto_hyperplane
from uiat.attacks.gradient import Gradient, InnerLoss, input_gradient
from uiat.attacks.random_numbers import normal, rekey, uniform
from uiat.attacks.search import Classifier, SearchState, per_image, target_class, where_image
from uiat.checks import check_counts
from uiat.errors import UserError
from uiat.threat import Threat, require, to_range

SHORTEST = 1e-8  # a step of length zero counts as this long where two lengths are compared


@dataclass(frozen=True, kw_only=True)
class FAB:
    """FAB-T (Croce & Hein 2020, algorithm 1 and section 3.4): towards one other class at a time; or FAB, towards any.

    Attempt j aims at the (j+2)-th most likely class of the image, or at the (j+1)-th of the classes other than y where
    the image is misclassified already. With K classes there are at most K - 1 targets, so K = 2 has one and K = 1
    none. Attempts beyond the first round of targets begin at random points. Where the logits do not depend on the
    image, it stays where it is.

    A point is broken once an adversarial example is found within epsilon; until then `distance` is the norm of the
    shortest adversarial perturbation so far (infinity if none), which may belong to any class other than y.

    Passes over a point in an attempt of n iterations: 2 n forwards and n backwards, in later rounds one more of each;
    for FAB every backward is K of them, one for each class.

    Args:
        threat: the ball; its norm is what is kept small.
        iterations: of an attempt.
        targets: classes to aim at, at most.
        restarts: rounds over the targets; the first begins at the image itself, others at random within epsilon / 2.
        alpha_max: the largest weight of the step from the image itself, against the step from the last iterate.
        eta: how far a step goes, 1 being onto the linearised boundary.
        beta: how much of the perturbation an adversarial iterate keeps.
        targeted: aim at one class an attempt. Otherwise every step goes to the boundary that is nearest by its
            linearisation, whichever class is behind it.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.search import advance
        >>> from uiat.attacks.random_numbers import keys
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.tensor([0.6, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([0, 0])
        >>> attack = FAB(threat=Linf(0.2), iterations=10)
        >>> points = attack.start(model, x, y, keys(0, torch.arange(2)), attempt=0)
        >>> points = advance(attack, model, points, 0, 10)
        >>> points["broken"].tolist(), [round(d, 1) for d in points["distance"].tolist()]
        ([True, False], [0.1, 0.4])
    """

    threat: Threat
    iterations: int = 100
    targets: int = 9
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    targeted: bool = True

    def __post_init__(self) -> None:
        require(self.threat)
        check_counts(self, "iterations", "targets", "restarts")
        for name in ("alpha_max", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a share, in [0, 1], but is {getattr(self, name)}")
        if not 1 <= self.eta < float("inf"):
            raise UserError(f"eta must be at least 1, so that a step reaches the boundary, but is {self.eta}")

    @property
    def name(self) -> str:
        """As in records: "fab-t", or "fab" without targets."""
        return "fab-t" if self.targeted else "fab"

    def attempts(self, num_classes: int) -> int:
        """A round over the targets for each restart; no class but y, no attempt."""
        return self.restarts * self._round(num_classes)

    def _round(self, num_classes: int) -> int:
        """Attempts of one round: the targets there are, or a single one."""
        return count_attempts("targeted-dlr", num_classes, restarts=1, targets=self.targets if self.targeted else 1)

    @torch.no_grad()
    def start(
        self,
        model: Classifier,
        x: Float[Tensor, "b ..."],
        y: Int[Tensor, "b"],
        key: Int[Tensor, "b"],
        *,
        attempt: int,
    ) -> SearchState:
        """At the image itself in the first round, at a random point in later ones.

        Raises:
            UserError: an attempt that there is no target for.
        """
        x, key = x.detach(), rekey(key, attempt)

        def aim(logits: Tensor) -> Tensor:
            return target_class(logits, y, attempt, targets=self.targets)

        points = {"x": x, "y": y, "key": key, "x_adv": x}
        here = self._boundary(model, points, x, aim)
        if self.targeted:
            points["target"] = aim(here.logits)
        points["broken"] = torch.zeros_like(y, dtype=torch.bool)
        points["distance"] = torch.full_like(here.values, float("inf"), dtype=x.dtype)
        points = _recall(self._judge(self._move(points, x), here.logits), here)
        if attempt < self._round(here.logits.shape[1]):
            return points
        return self._linearise(model, self._move(points, self._random(x, key)))

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """A step, its verdict, the way back from the far side, and the gradient for the next step.

        The verdict and the gradient are of the same image only on the near side, where some eighth of the steps end,
        and which ones cannot be told beforehand. So they do not share a forward pass.
        """
        points = self._query(model, self._move(points, self._step(points)))
        return points if i + 1 >= self.iterations else self._linearise(model, self._retreat(points))

    def unbreak(self, points: SearchState, which: Bool[Tensor, "b"]) -> SearchState:
        """Forget how near the nearest example was, where it was none after all."""
        return points | {"distance": points["distance"].masked_fill(which, float("inf"))}

    def _step(self, points: SearchState) -> Tensor:
        """By eta of the ways from the iterate and from the image to the plane, with weight alpha on the second."""
        x, x_t, w, gap = points["x"], points["x_t"], points["gradient"], -points["difference"]
        from_x_t = onto_hyperplane(x_t, w, gap, norm=self.threat.norm)
        from_x = onto_hyperplane(x, w, gap + ((x_t - x) * w).flatten(1).sum(dim=1), norm=self.threat.norm)
        near, far = (self.threat.length(d).clamp_min(SHORTEST) for d in (from_x_t, from_x))
        alpha = per_image(near / (near + far), x).clamp_max(self.alpha_max)
        return to_range((1 - alpha) * (x_t + self.eta * from_x_t) + alpha * (x + self.eta * from_x))

    def _random(self, x: Tensor, key: Tensor) -> Tensor:
        """A random direction, uniform in the cube (Linf) or on the sphere, of length epsilon / 2."""
        shape = x.shape[1:]
        v = 2 * uniform(key, shape) - 1 if self.threat.norm == "Linf" else normal(key, shape)
        length = self.threat.length(v).clamp_min(SHORTEST)
        return to_range(x + (v * per_image(float(self.threat.epsilon) / 2 / length, v)).to(x))

    def _move(self, points: SearchState, x_t: Tensor) -> SearchState:
        """To x_t; within epsilon, to what the threat model makes of it, so that its verdict is that of an example."""
        length = self.threat.length(x_t - points["x"])
        x_t = where_image(self._within(length), self.threat.project(x_t, points["x"]), x_t)
        return points | {"x_t": x_t, "length": length}

    def _retreat(self, points: SearchState) -> SearchState:
        """Points on the far side come back to beta of their perturbation."""
        x, x_t = points["x"], points["x_t"]
        return self._move(points, where_image(points["outside"], x + self.beta * (x_t - x), x_t))

    def _query(self, model: Classifier, points: SearchState) -> SearchState:
        """The verdict on where the points are: one forward."""
        return self._judge(points, model(points["x_t"]))

    def _linearise(self, model: Classifier, points: SearchState) -> SearchState:
        """The verdict and the boundary's linearisation where the points are: one forward and one backward."""
        here = self._boundary(model, points, points["x_t"], lambda _: points["target"])
        return _recall(self._judge(points, here.logits), here)

    def _boundary(
        self, model: Classifier, points: SearchState, at: Tensor, aim: Callable[[Tensor], Tensor]
    ) -> Gradient:
        """The linearised boundary to the class that `aim` picks, or to the nearest one."""
        if self.targeted:
            return input_gradient(_difference(model, points["y"], aim), at)
        return nearest_boundary(model, at, points["y"], norm=self.threat.norm)

    def _judge(self, points: SearchState, logits: Float[Tensor, "b k"]) -> SearchState:
        """Record which points are on the far side, how near to the image, and whether that breaks them."""
        outside = logits.argmax(dim=1) != points["y"]
        nearer = outside & ~points["broken"] & (points["length"] < points["distance"])
        breaks = nearer & self._within(points["length"])
        return points | {
            "outside": outside,
            "distance": torch.where(nearer, points["length"], points["distance"]),
            "x_adv": where_image(breaks, points["x_t"], points["x_adv"]),
            "broken": points["broken"] | breaks,
        }

    def _within(self, length: Float[Tensor, "b"]) -> Bool[Tensor, "b"]:
        return length <= float(self.threat.epsilon)


def _difference(model: Classifier, y: Tensor, aim: Callable[[Tensor], Tensor]) -> InnerLoss:
    """logit_target - logit_y, below zero on the near side of the boundary between the two."""

    def difference(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        of = (logits.gather(1, k[:, None]).squeeze(1) for k in (aim(logits.detach()), y))
        return next(of) - next(of), logits

    return difference


def _recall(points: SearchState, here: Gradient) -> SearchState:
    """The points with their linearisation; what is not finite leads nowhere, and counts as zero."""
    w, difference = (v.to(points["x"].dtype).nan_to_num(0, 0, 0) for v in (here.gradient, here.values))
    return points | {"gradient": w, "difference": difference}
