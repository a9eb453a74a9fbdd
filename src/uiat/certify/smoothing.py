"""Randomised smoothing: a certified L2 radius of each image, of any model that can be run often (Cohen et al. 2019)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from uiat.certify.smoothing_state import SmoothingState
from uiat.checks import Between, Count, Seed, check_batch, check_labels, checked, checked_fields
from uiat.errors import UserError
from uiat.intervals import least_probability, wilson
from uiat.models.inspect import classes_of, device_of
from uiat.models.modes import frozen
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank
from uiat.system.surroundings import neutral_surroundings

ABSTAINS = -1
BLOCK = 100  # images of noise that are drawn at a time, whatever the batch size, so that it changes no number
Sigma = Annotated[float, Between(0, 10, above=True)]


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Settings of a certification by randomised smoothing.

    Args:
        sigma: standard deviation of the Gaussian noise, in units of the image range [0, 1].
        n0: noisy images by which the class to certify is guessed.
        n: noisy images by which its probability is bounded.
        alpha: probability, at most, that the radius of an image is too large.

    Raises:
        UserError: a number outside its range; so few images that nothing could be certified.

    Example:
        >>> round(Smoothing(sigma=0.25, n=100_000).largest_radius, 2)
        0.95
        >>> Smoothing(sigma=0.25, n=5)
        Traceback (most recent call last):
        uiat.errors.UserError: n 5 certifies nothing at alpha 0.001, whatever the model answers: give more than 9
    """

    sigma: Sigma
    n0: Count = 100
    n: Count = 10_000
    alpha: Annotated[float, Between(0, 1, above=True, below=True)] = 0.001

    def __post_init__(self) -> None:
        least = next(n for n in range(1, 2_000) if self.alpha ** (1 / n) > 0.5)
        if self.n < least:
            raise UserError(
                f"n {self.n} certifies nothing at alpha {self.alpha:g}, whatever the model answers: give more than "
                f"{least - 1}"
            )

    def radius(self, count: int) -> float:
        """Return the certified radius of a class that so many of the n noisy images got; 0 where it is none.

        sigma Phi^-1(p), with p the lower bound on the probability of the class (Cohen et al. 2019, theorem 1 and
        section 3.2.2, with 1 - p for that of the runner-up).
        """
        p = least_probability(count, self.n, error=self.alpha)
        return self.sigma * NormalDist().inv_cdf(p) if p > 0.5 else 0.0

    @property
    def largest_radius(self) -> float:
        """The radius of an image all of whose noisy copies get one class."""
        return self.radius(self.n)


@dataclass(frozen=True)
class SmoothedResult:
    """The certified radius of each image, and accuracies of the smoothed model at radii.

    Args:
        settings: sigma, n0, n and alpha.
        seed: seed of the noise.
        predictions: the smoothed model's class of each image; -1 where it abstains.
        correct: for each image, whether that is its label.
        radii: L2 radius of each image within which the class is certain; 0 where the smoothed model abstains.
        seconds: time of the certification.

    Example:
        >>> result = SmoothedResult(Smoothing(sigma=0.25), 0, [3, 1, -1], [True, False, False], [0.5, 0.2, 0.0], 1.0)
        >>> result.accuracy(0.0), result.accuracy(0.6), result.mean_radius, result.abstained
        (0.333, 0.0, 0.167, 1)
    """

    settings: Smoothing
    seed: int
    predictions: list[int]
    correct: list[bool]
    radii: list[float]
    seconds: float

    def accuracy(self, radius: float) -> float:
        """Return the fraction of images that get their label from the smoothed model, certainly so within a radius."""
        return self._count(radius) / len(self.radii)

    def _count(self, radius: float) -> int:
        return sum(right and own >= radius for right, own in zip(self.correct, self.radii, strict=True))

    @property
    def mean_radius(self) -> float:
        """The mean certified radius, which is 0 for an image with a wrong class or none (Zhai et al. 2020)."""
        return sum(r for right, r in zip(self.correct, self.radii, strict=True) if right) / len(self.radii)

    @property
    def abstained(self) -> int:
        """Number of images of which no class is certain."""
        return self.predictions.count(ABSTAINS)

    def to_json(self, radii: Sequence[float] | None = None) -> dict[str, Any]:
        """Return plain values: certified accuracy at radii with its 95 % interval, and what was found of each image.

        Args:
            radii: L2 radii; by default 0 and every half sigma that could be certified.
        """
        s, n = self.settings, len(self.radii)
        at = [k * s.sigma / 2 for k in range(1 + int(2 * s.largest_radius / s.sigma))] if radii is None else list(radii)
        return {
            **{"sigma": s.sigma, "n0": s.n0, "n": s.n, "alpha": s.alpha, "seed": self.seed},
            "accuracy": self.accuracy(0.0),
            "at": at,
            "certified": [self.accuracy(radius) for radius in at],
            "intervals": [wilson(self._count(radius), n) for radius in at],
            "abstained": self.abstained,
            "mean_radius": self.mean_radius,
            "predictions": self.predictions,
            "radii": self.radii,
            "seconds": self.seconds,
        }


@checked
@neutral_surroundings()
def certify_smoothing(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    sigma: Sigma,
    n0: Count = 100,
    n: Count = 10_000,
    alpha: float = 0.001,
    batch_size: Count = 500,
    seed: Seed = 0,
    progress: Callable[[str, int, int], None] | None = None,
    state: Path | None = None,
    resume: bool = False,
) -> SmoothedResult:
    """Certify an L2 radius of each image: within it, the model smoothed with Gaussian noise gives the same class.

    The smoothed model's class of an image is the one that the model gives most often to the image with noise of
    deviation sigma added, which may leave [0, 1]. The class is guessed from n0 noisy images; n others bound its
    probability from below (Clopper & Pearson 1934), and from p > 1/2 follows the radius sigma Phi^-1(p) (Cohen et al.
    2019, arXiv:1902.02918, theorem 1 and figure 2, CERTIFY); otherwise the smoothed model abstains. This is a statement
    on the smoothed model and not on the model itself: attacks on the latter contradict nothing.

    Where `torch.distributed` is initialised, each process takes every world_size-th image, and all return the same.

    Args:
        model: maps images, and noisy ones around [0, 1], to logits (n, k). Train it on noisy images of the same sigma.
        x: images, floats in [0, 1].
        y: labels, int64.
        sigma: standard deviation of the noise, in units of the image range, such as 0.25.
        n0: noisy images for the guess.
        n: noisy images for the bound; the largest radius grows with it. Cohen et al. take 100,000.
        alpha: probability, at most and for each image, that its radius is too large.
        batch_size: noisy images at a time.
        seed: seed of the noise; each image has its own, by its position, and so the same radius in any company.
        progress: called after every image with ("certify-smoothing-SIGMA", images done, of how many).
        state: a file that is written every minute and when the work is stopped; delete it once the result is kept.
        resume: resume from that file, to the same result, in any number of processes.

    Raises:
        UserError: what `Smoothing` refuses, images or labels that do not fit, a state file in the way, damaged or of
            another certification.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x = torch.rand(3, 1, 2, 2)
        >>> result = certify_smoothing(model, x, model(x).argmax(1), sigma=0.1, n=100)
        >>> len(result.radii), result.accuracy(0.0) >= result.accuracy(0.1)
        (3, True)
    """
    settings = Smoothing(sigma=sigma, n0=n0, n=n, alpha=alpha)
    check_batch(x, y)
    classes = classes_of(model, x)
    check_labels(y, num_classes=classes)
    rank, start = current_rank(), time.perf_counter()
    kept = SmoothingState.of(state, rank, model, x, [sigma, n0, n, alpha, seed])
    done = rank.agree(lambda: kept.open(resume=resume))
    own = rank.index(len(x)).tolist()
    try:
        for i in own:
            if i not in done:
                done[i] = _certify_image(model, x[i], settings, classes, seed=seed, index=i, batch_size=batch_size)
                kept.save_if_due(done)
            if progress is not None and rank.first:
                progress(name_smoothing(sigma), min(i + rank.size, len(x)), len(x))
    finally:
        kept.save(done)
    found = {i: row for part in rank.gather({i: done[i] for i in own}) for i, row in part.items()}
    guesses, counts = zip(*(found[i] for i in range(len(x))), strict=True)
    radii = [settings.radius(count) for count in counts]
    predictions = [k if radius else ABSTAINS for k, radius in zip(guesses, radii, strict=True)]
    correct = [k == label for k, label in zip(predictions, y.tolist(), strict=True)]
    seconds = max(rank.gather(time.perf_counter() - start))
    return SmoothedResult(settings, seed, predictions, correct, radii, seconds)


def name_smoothing(sigma: float) -> str:
    """Return the name of a certification, as commands take it.

    Example:
        >>> name_smoothing(0.25)
        'certify-smoothing-0.25'
    """
    return f"certify-smoothing-{sigma:g}"


def _certify_image(
    model: nn.Module, image: Tensor, settings: Smoothing, classes: int, *, seed: int, index: int, batch_size: int
) -> tuple[int, int]:
    """Return the class that most of n0 noisy images got, and how many of n others got it."""
    device = device_of(model)
    generator = torch.Generator(device).manual_seed((seed * 1_000_003 + index) % 2**63)
    arguments = (model, image.to(device), settings.sigma, classes, generator, batch_size)
    guess = int(_count_classes(*arguments, n=settings.n0)[:classes].argmax())
    return guess, int(_count_classes(*arguments, n=settings.n)[guess])


@torch.no_grad()
def _count_classes(
    model: nn.Module,
    image: Tensor,
    sigma: float,
    classes: int,
    generator: torch.Generator,
    batch_size: int,
    *,
    n: int,
) -> Tensor:
    """Count the classes of n noisy images, (k + 1,); the last is of those with a NaN logit, which have none."""
    counts, left = torch.zeros(classes + 1, dtype=torch.int64), n
    with frozen(model):
        while left:
            blocks = min(max(1, batch_size // BLOCK), -(-left // BLOCK))
            noise = torch.cat(
                [torch.randn(BLOCK, *image.shape, generator=generator, device=image.device) for _ in range(blocks)]
            )[:left]
            for part in (image + sigma * noise.to(image.dtype)).split(batch_size):
                logits = model(part)
                found = logits.argmax(1).masked_fill(logits.isnan().any(1), classes)
                counts += found.bincount(minlength=classes + 1).cpu()
            left -= len(noise)
    return counts
