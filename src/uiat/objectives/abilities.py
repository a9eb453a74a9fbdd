"""Questions about a training objective that the step, the loop, validation and the run folder ask.

An objective of the user's own answers them too: by an `attack` that is a `PGD`, an `inverse` that is one of
`uiat.inverse`, and a weight `alignment`, where it has them.
"""

import itertools
from dataclasses import replace
from typing import TypeVar

from torch import nn

from uiat.attacks import PGD
from uiat.errors import UserError
from uiat.formatting import threat_text
from uiat.inverse import InverseGenerator, UniversalInverse, UniversalPerturbation
from uiat.objectives.base import Objective

AnObjective = TypeVar("AnObjective", bound=Objective)


def attack_of(objective: Objective) -> PGD | None:
    """Return the attack that gives the adversarial examples; None for an objective that trains on none.

    Example:
        >>> from uiat import Standard
        >>> attack_of(Standard()) is None
        True
    """
    attack = getattr(objective, "attack", None)
    return attack if isinstance(attack, PGD) else None


def with_radius(objective: Objective, fraction: float) -> Objective:
    """Return an objective whose attack has a fraction of its radius and of its step; the rest is as it was.

    Example:
        >>> from uiat import PGDAT
        >>> with_radius(PGDAT(), 0.5).attack.threat.epsilon == 4 / 255
        True
    """
    attack = attack_of(objective)
    assert attack is not None
    threat = replace(attack.threat, epsilon=float(attack.threat.epsilon) * fraction)
    weaker = replace(attack, threat=threat, step_size=float(attack.step_size) * fraction)
    changed: Objective = replace(objective, attack=weaker)  # type: ignore[type-var]
    return changed


def with_steps(objective: Objective, fraction: float) -> Objective:
    """Return an objective whose attack makes a fraction of its steps, at least one, each so much longer.

    Together they go as far as all of them did, but no single one further than the radius.

    Example:
        >>> from uiat import PGDAT
        >>> attack = with_steps(PGDAT(), 0.5).attack
        >>> attack.steps, attack.step_size == 4 / 255
        (5, True)
    """
    attack = attack_of(objective)
    assert attack is not None
    if not attack.steps:  # replays move the examples
        return objective
    steps = max(1, round(fraction * attack.steps))
    reach = float(attack.step_size) * attack.steps
    # Never shorter than its own: a step may be longer than the radius where iterates are not held in the ball.
    size = max(float(attack.step_size), min(reach / steps, float(attack.threat.epsilon)))
    changed: Objective = replace(objective, attack=replace(attack, steps=steps, step_size=size))  # type: ignore[type-var]
    return changed


def describe_batches(objective: Objective) -> str:
    """Say of which weights, which images and which attack a step's terms and its "correct" are.

    Example:
        >>> from uiat import PGDAT, Standard
        >>> describe_batches(Standard())
        'images of the batch as they are; weights before the update, model in train mode'
        >>> describe_batches(PGDAT())
        'images of the batch attacked by 10 steps of PGD (ce) in Linf 8/255; weights before the update, model in ...'
    """
    attack = attack_of(objective)
    if attack is not None:
        how = f"attacked by {attack.steps} steps of PGD ({attack.loss}) in {threat_text(attack.threat)}"
    else:
        how = "as they are" if getattr(objective, "threat", None) is None else f"as {objective.name} attacks them"
    return f"images of the batch {how}; weights before the update, model in train mode"


def is_single_step(objective: Objective) -> bool:
    """True if the objective trains on attacks of one step, or of none but those that replays take (Free-AT).

    Example:
        >>> from uiat import recipes
        >>> [is_single_step(recipes.get(f"cifar10-small-{name}").objective) for name in ("fgsm-rs", "free", "pgd-at")]
        [True, True, False]
    """
    attack = attack_of(objective)
    return attack is not None and attack.steps <= 1


def crafts_in_eval_mode(objective: Objective) -> bool:
    """True if the inner problems pass the model in eval mode, frozen, and read nothing else of it.

    Of the package's own methods, attacks and inverse adversaries this is known. A method with networks that follow the
    model's weights (ADR) reads those.

    Example:
        >>> from uiat import PGD, PGDAT, Linf
        >>> attack = PGD(threat=Linf("8/255"), batchnorm="train")
        >>> crafts_in_eval_mode(PGDAT()), crafts_in_eval_mode(PGDAT(attack=attack))
        (True, False)
    """
    attack, inverse = attack_of(objective), getattr(objective, "inverse", None)
    own = all(type(each).__module__.startswith("uiat.") for each in (objective, attack, inverse) if each is not None)
    return own and attack is not None and attack.batchnorm == "eval" and not hasattr(objective, "networks")


def is_second_order(objective: Objective) -> bool:
    """True if the loss contains input gradients, so that its backward pass needs second derivatives (GradAlign).

    Example:
        >>> from uiat import PGDAT
        >>> is_second_order(PGDAT()), is_second_order(PGDAT(alignment=0.2))
        (False, True)
    """
    return bool(getattr(objective, "alignment", 0.0))


def regulariser_of(objective: Objective) -> str:
    """Return the name of the inverse adversary's regulariser; "none" where it has none.

    Example:
        >>> from uiat import PGDAT
        >>> regulariser_of(PGDAT())
        'none'
    """
    return str(getattr(getattr(objective, "inverse", None), "regulariser", "none"))


def reads_adversarial_examples(objective: Objective) -> bool:
    """True if the loss of the inverse adversary depends on the adversarial examples (its regulariser does).

    Example:
        >>> from uiat import UIAT
        >>> reads_adversarial_examples(UIAT(inverse=UniversalInverse(regulariser="logit")))
        True
    """
    return regulariser_of(objective) != "none"


def takes_soft_labels(objective: Objective) -> bool:
    """True if the objective takes the probabilities of mixed images as labels: its `takes_soft_labels` says so.

    Others ask whether an image is classified correctly, how likely its class is, or keep something for its class.

    Example:
        >>> from uiat import Mart, Trades
        >>> takes_soft_labels(Trades()), takes_soft_labels(Mart())
        (True, False)
    """
    return bool(getattr(objective, "takes_soft_labels", False))


def require_soft_labels(objective: Objective) -> None:
    """Refuse an objective that needs one class an image, where images are mixed by MixUp or CutMix.

    Raises:
        UserError: the objective does not take them.

    Example:
        >>> from uiat import Mart
        >>> require_soft_labels(Mart())
        Traceback (most recent call last):
        uiat.errors.UserError: mart needs one class an image: set data.mixup and data.cutmix to 0
    """
    if not takes_soft_labels(objective):
        momentum = getattr(objective, "momentum", "none")
        cause = "" if momentum == "none" else f" with objective.momentum {momentum}"
        raise UserError(f"{objective.name}{cause} needs one class an image: set data.mixup and data.cutmix to 0")


def takes_replays(objective: Objective) -> bool:
    """True unless the objective's `takes_replays` says that it reads the attack's own examples, or counts visits.

    Example:
        >>> from uiat import HAT, Trades
        >>> takes_replays(Trades()), takes_replays(HAT())
        (True, False)
    """
    return bool(getattr(objective, "takes_replays", True))


def universal_inverse_of(objective: Objective) -> UniversalInverse | None:
    """Return the settings of the universal inverse perturbations; None for an objective that has none.

    Example:
        >>> from uiat import PGDAT
        >>> universal_inverse_of(PGDAT()) is None
        True
    """
    inverse = getattr(objective, "inverse", None)
    return inverse if isinstance(inverse, UniversalInverse) else None


def universal_of(objective: Objective, state: nn.Module) -> UniversalPerturbation | None:
    """Return the universal inverse perturbations in an objective's state, on the CPU; None if the objective has none.

    Args:
        objective: the objective that `state` belongs to.
        state: what `objective.init` returned.

    Example:
        >>> from uiat import UIAT
        >>> universal_of(UIAT(), UIAT().init(num_classes=2, image_shape=(1, 8, 8))).z.shape
        torch.Size([2, 1, 8, 8])
    """
    z, threat = getattr(state, "z", None), getattr(objective, "threat", None)
    inverse = universal_inverse_of(objective)
    if z is None or inverse is None or threat is None:
        return None
    return UniversalPerturbation(z.detach().cpu(), type(threat)(inverse.radius), inverse.cell)


def generator_in(state: nn.Module) -> InverseGenerator | None:
    """Return the generator of inverse examples in an objective's state; None if the objective has none.

    Example:
        >>> from uiat import UIAT
        >>> generator_in(UIAT().init(num_classes=2, image_shape=(1, 8, 8))) is None
        True
    """
    generator = getattr(state, "generator", None)
    return generator if isinstance(generator, InverseGenerator) else None


def one_off_epoch(objective: Objective) -> int | None:
    """Return the one epoch in which universal perturbations are computed (one-off UIAT); None without such an epoch.

    Example:
        >>> from uiat import UIAT
        >>> one_off_epoch(UIAT(inverse=UniversalInverse(epoch=3)))
        3
    """
    inverse = universal_inverse_of(objective)
    return None if inverse is None else inverse.epoch


def phases(objective: Objective, epochs: int) -> list[tuple[int, int]]:
    """Split a run's epochs into those that cost the same: a one-off's epoch, those before it and those after it.

    Args:
        objective: the training method.
        epochs: number of epochs of the run.

    Returns:
        (number of epochs, first of them counted from 0), in order.

    Example:
        >>> from uiat import UIAT
        >>> phases(UIAT(inverse=UniversalInverse(epoch=10)), 40)
        [(10, 0), (1, 10), (29, 11)]
    """
    epoch = one_off_epoch(objective)
    edges = sorted({0, epochs} | (set() if epoch is None else {epoch, epoch + 1}))
    return [(last - first, first) for first, last in itertools.pairwise(edges)]


def without_warm_start(objective: AnObjective) -> AnObjective:
    """Return the objective with universal perturbations that start anew, not from the file of another run.

    Example:
        >>> from uiat import UIAT
        >>> without_warm_start(UIAT(inverse=UniversalInverse(warm_start="runs/a"))).inverse.warm_start is None
        True
    """
    inverse = universal_inverse_of(objective)
    if inverse is None or inverse.warm_start is None:
        return objective
    return replace(objective, inverse=replace(inverse, warm_start=None))  # type: ignore[type-var]
