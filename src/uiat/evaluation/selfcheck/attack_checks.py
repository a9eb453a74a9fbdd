"""Compare attacks that should have broken more than others. Pure functions that return None where all is well."""

import math

from torch import Tensor

from uiat.evaluation.selfcheck.finding import (
    CHANCE,
    WITHOUT_GRADIENT,
    Finding,
    Severity,
    sign_test,
    whole_percent,
    wilson_lower,
)
from uiat.shapes import Bool, Float

# exp(-17) is half of what float32 can tell from one: beyond that gap p_y rounds to one, where cross entropy is flat.
ROUNDED = 17.0
# Where cross entropy has no gradient or not all of it, a point is hardly attacked, and adds itself to the accuracy.
BLIND = 0.05
# A margin attack breaks some 4 points in 100 more than cross entropy on sound models (TRADES under PGD and CW), and
# as many as 15 where the model is unsure of everything. So more than this is a note: another loss is needed, no more.
IMBALANCED = 0.10
# Noise is no attack: what it finds and gradients do not, they should have found.
BY_NOISE = 0.01
# A short random search is one: behind a short gradient attack it finds 1 or 2 points in 100 on sound models, and
# behind the whole standard ensemble fewer than 1.
BY_SEARCH = 0.02
# In the whole range every image may become every other, so only a failing search leaves any of them robust.
BEYOND = 0.05
# Steps of 2.5 radii in all reach every place in the ball either way: from 10 to 100 steps sound models lose 1 or 2
# points in 100, and up to 6 at large L2 radii, where the loss is curved.
BY_STEPS = 0.10
# Plain steps of one length miss what Auto-PGD and targets find: on sound models about 5 images in 100, and as many as
# 20 of a method that weights its images or its margins. So more than this is a note, and a fifth of what is left robust
# is a number of the attack and not of the model.
BY_STRONGER = 0.03
MISLED = 0.20
# What the reference implementation of the standard ensemble warns from: Square's part in the accuracy.
GAIN = 0.002
# Attacks that the scale of the logits does not stop.
SCALE_FREE = "run --attacks apgd-dlr,apgd-t,fab-t,square"
ENOUGH = 1_000  # images: at 50 % the 95 % interval is then 3 points to either side


def check_saturation(
    vanished: Bool[Tensor, "n"], gap: Float[Tensor, "n"], *, by_margin: Bool[Tensor, "n"], by_entropy: Bool[Tensor, "n"]
) -> Finding | None:
    """Check for logits so far apart that cross entropy has no gradient in float32, or misleads attacks otherwise.

    Args:
        vanished: mask of the images where the gradient of cross entropy is zero and that of the margin is not.
        gap: logit_y less the largest other.
        by_margin: mask of those broken by an attack on the margin, which the scale of the logits does not change.
        by_entropy: mask of those broken by the same attack on cross entropy.

    Example:
        >>> import torch
        >>> no, yes = torch.zeros(20, dtype=torch.bool), torch.ones(20, dtype=torch.bool)
        >>> check_saturation(no, torch.full((20,), 5.0), by_margin=yes, by_entropy=yes) is None
        True
        >>> check_saturation(yes, torch.full((20,), 500.0), by_margin=yes, by_entropy=no).check
        'saturation'
    """
    n, zero, rounded = len(gap), int(vanished.sum()), int((gap > ROUNDED).sum())
    more, fewer = int((by_margin & ~by_entropy).sum()), int((by_entropy & ~by_margin).sum())
    beyond = f"an attack on the margin breaks {more} of {n} points that cross entropy leaves, and misses {fewer}"
    if wilson_lower(zero, n) > BLIND:
        lost = f"the gradient of cross entropy vanishes at {zero} of {n} images ({whole_percent(zero, n)})"
        return Finding("saturation", f"the logits are saturated, so that {lost}; {beyond}", next_step=SCALE_FREE)
    if sign_test(more, fewer) < CHANCE and wilson_lower(rounded, n) > BLIND:
        reason = f"the logits are saturated at {rounded} of {n} images; {beyond}"
        return Finding("saturation", reason, next_step=SCALE_FREE)
    if sign_test(more, fewer) < CHANCE and more - fewer > IMBALANCED * n:
        return Finding("cross entropy", f"{beyond}: use both", "note")
    return None


def check_own_attack_wins(by: str, count: int, n: int) -> Finding | None:
    """Check for points that an attack of the user's own breaks, and Auto-PGD before it did not.

    Args:
        by: name of the attack.
        count: number of points that it alone breaks.
        n: number of points attacked.

    Example:
        >>> check_own_attack_wins("mine", 1, 100) is None, check_own_attack_wins("mine", 10, 100).severity
        (True, 'note')
    """
    if wilson_lower(count, n) <= BY_SEARCH:
        return None
    points = f"{count} of {n} points ({whole_percent(count, n)})"
    return Finding(
        "own attack", f"{by} breaks {points} that Auto-PGD did not: without it the number would be too high", "note"
    )


def check_gradient_free_wins(by: str, count: int, n: int) -> Finding | None:
    """Check for points that noise, a random search or another model's examples break, and gradient attacks did not.

    Args:
        by: "noise", "square" or "transfer".
        count: number of points that it alone breaks.
        n: number of points attacked.

    Example:
        >>> check_gradient_free_wins("noise", 1, 100) is None, check_gradient_free_wins("noise", 10, 100).check
        (True, 'noise')
    """
    if wilson_lower(count, n) <= (BY_NOISE if by == "noise" else BY_SEARCH):
        return None
    name = {"noise": "random noise", "square": "Square, which needs no gradient,", "transfer": "another model's attack"}
    points = f"{count} of {n} points ({whole_percent(count, n)})"
    reason = f"{name[by]} breaks {points} that the attacks by gradient did not break"
    return Finding(by, reason, next_step=WITHOUT_GRADIENT)


def check_square_gains(count: int, n: int) -> Finding | None:
    """Note that Square has lowered the accuracy that the gradient attacks before it had left, as the reference warns.

    Args:
        count: number of images that it alone breaks.
        n: number of images of the evaluation.

    Example:
        >>> check_square_gains(2, 1_000) is None, check_square_gains(10, 1_000).severity
        (True, 'note')
    """
    if count < 2 or count <= GAIN * n:  # one image of few may be chance
        return None
    reason = (
        f"Square breaks {count} of {n} images ({whole_percent(count, n, digits=1)}) that the attacks by gradient left "
        "before it: a longer one may break more"
    )
    return Finding("square", reason, "note", "run --attacks autoattack,square-20000")


def check_unbounded_attack(left: int, n: int) -> Finding | None:
    """Check for points that no attack breaks when every pixel may take every value.

    Example:
        >>> check_unbounded_attack(0, 100) is None, check_unbounded_attack(50, 100).check
        (True, 'unbounded attack')
    """
    if wilson_lower(left, n) <= BEYOND:
        return None
    points = f"{left} of {n} points ({whole_percent(left, n)})"
    reason = f"{points} are not broken when the radius is the whole range of the images"
    return Finding("unbounded attack", reason, next_step=WITHOUT_GRADIENT)


def check_more_steps(gained: int, n: int, *, few: int = 10, many: int = 100) -> Finding | None:
    """Check for points that many steps break and few did not.

    Example:
        >>> check_more_steps(2, 100) is None, check_more_steps(30, 100).check
        (True, 'steps')
    """
    if wilson_lower(gained, n) <= BY_STEPS:
        return None
    reason = f"{many} steps break {gained} of {n} points ({whole_percent(gained, n)}) that {few} steps did not break"
    return Finding("steps", f"{reason}: the attack has not converged", next_step="run --attacks autoattack")


def check_overstatement(plain: str, stronger: str, count: int, n: int) -> Finding | None:
    """Check for images that withstand a plain attack of a result, and not a stronger one of the same result.

    Args:
        plain: name of the plain attack, such as "pgd-20".
        stronger: name of the attack to quote.
        count: number of images that only the plain attack leaves robust.
        n: number of images.

    Example:
        >>> check_overstatement("pgd-20", "autoattack", 3, 100) is None
        True
        >>> check_overstatement("pgd-20", "autoattack", 20, 100).reason
        'pgd-20 overstates the robustness: 20 of 100 images (20 %) withstand it, and fall to other attacks: quote ...'
    """
    if wilson_lower(count, n) <= BY_STRONGER:
        return None
    images = f"{count} of {n} images ({whole_percent(count, n)})"
    reason = f"{plain} overstates the robustness: {images} withstand it, and fall to other attacks: quote {stronger}"
    return Finding("plain attack", reason, "note")


def check_plain_attacks(names: str, count: int, n: int) -> Finding | None:
    """Check for images that an evaluation by plain attacks alone left robust, and short runs of Auto-PGD break.

    Args:
        names: names of the attacks of the evaluation.
        count: number of images that the short runs break.
        n: number of images looked at that the evaluation left robust.

    Example:
        >>> check_plain_attacks("pgd-20", 2, 80) is None
        True
        >>> [check_plain_attacks("pgd-20", count, 80).severity for count in (10, 40)]
        ['note', 'do not believe']
    """
    surely = wilson_lower(count, n)
    if surely <= BY_STRONGER:
        return None
    images = f"{count} of {n} images ({whole_percent(count, n)})"
    reason = f"{names} overstates the robustness: short runs of Auto-PGD break {images} that it left robust"
    severity: Severity = "do not believe" if surely > MISLED else "note"
    return Finding("plain attack", reason, severity, "run --attacks autoattack-quick")


def check_larger_radius(gained: int, lost: int, n: int) -> Finding | None:
    """Check for an attack that breaks fewer points at twice the radius.

    Args:
        gained: number of points that twice the radius alone breaks.
        lost: number of points that the radius alone breaks.
        n: number of points attacked.

    Example:
        >>> check_larger_radius(40, 1, 100) is None, check_larger_radius(0, 20, 100).check
        (True, 'radius')
    """
    if sign_test(lost, gained) >= CHANCE:
        return None
    reason = f"an attack of twice the radius loses {lost} of {n} points and gains {gained}"
    return Finding("radius", reason, next_step="run --attacks autoattack")


def check_sample_size(n: int) -> Finding | None:
    """Note that there are fewer than 1,000 images.

    Example:
        >>> check_sample_size(100).severity, check_sample_size(1_000) is None
        ('note', True)
    """
    if n >= ENOUGH:
        return None
    half = 98 / math.sqrt(n)
    return Finding("images", f"it rests on {n:,} images: at 50 % that is +- {half:.0f} points", "note")
