"""Replays: free adversarial training (Shafahi et al. 2019), whose examples move with the updates of the weights."""

from torch import Tensor

from uiat.errors import UserError
from uiat.objectives import Examples, Objective
from uiat.objectives.abilities import attack_of, reads_adversarial_examples, takes_replays


def check_replays(replays: int, objective: Objective) -> None:
    """Refuse replays that the objective has no use for, and an attack that has no steps without them.

    Raises:
        UserError: replays of an objective without an attack, of one that reads the attack's own examples, which replays
            move, or that counts visits; no replays for an attack of 0 steps, whose examples would be noise.

    Example:
        >>> from uiat import Standard
        >>> check_replays(2, Standard())
        Traceback (most recent call last):
        uiat.errors.UserError: replays need a method that trains on adversarial examples, not 'standard'
    """
    attack = attack_of(objective)
    if not replays and attack is not None and attack.steps == 0:
        raise UserError("an attack of 0 steps takes them from replays: set optimisation.replays, or attack.steps")
    if replays and attack is not None and attack.start == "memory":
        raise UserError('replays move their own examples on: set attack.start to "uniform", not "memory"')
    if replays and attack is None:
        raise UserError(f"replays need a method that trains on adversarial examples, not {objective.name!r}")
    if replays and reads_adversarial_examples(objective):
        raise UserError("an inverse regulariser reads the adversarial examples, which replays move: set it to none")
    if replays and not takes_replays(objective):
        raise UserError(f"replays train on each batch again with moved examples, which {objective.name!r} cannot do")


def move_examples(objective: Objective, examples: Examples) -> Tensor:
    """Move adversarial examples one step of the attack, by the gradient that the weights' backward pass gave them.

    No pass of its own is made for it.

    Raises:
        UserError: the loss does not depend on adversarial examples.
    """
    attack = attack_of(objective)
    assert attack is not None
    assert examples.x_adv is not None
    if (gradient := examples.x_adv.grad) is None:
        raise UserError(f"replays need a loss of adversarial examples, which {objective.name!r} has not")
    return attack.single_step(examples.x_adv.detach(), gradient, examples.x)
