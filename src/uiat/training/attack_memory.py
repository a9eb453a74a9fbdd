"""Remember each training image's last adversarial perturbation, for attacks that start from it (`start="memory"`).

An adversary of the last epoch is nearly one of this epoch (ATTA: Zheng et al., "Efficient Adversarial Training with
Transferable Adversarial Examples", CVPR 2020), so that a step or two from it do what many do from a random start.

One int8 buffer of the state, (N, C, H, W), in steps of epsilon / 127: 3 KB for an image of CIFAR, 150 MB for its
training set. It is saved with the state, so that a resumed run goes on bit for bit. It lies on the image as that is in
the set, and is moved along with the crop and the mirroring of a batch. It starts uniformly at random, as an attack
without memory does in every epoch.
"""

from dataclasses import replace

import torch
from torch import nn

from uiat.data import Batch
from uiat.data.sampling import move, move_back
from uiat.errors import UserError
from uiat.objectives import Examples, Objective
from uiat.objectives.abilities import attack_of
from uiat.objectives.base import positions_of
from uiat.system.distributed import current_rank

NAME = "attack_memory"
LEVELS = 127  # steps from zero to epsilon


def has_memory(objective: Objective) -> bool:
    """True if the attack of an objective starts from what it found last.

    Example:
        >>> from uiat import PGD, PGDAT
        >>> has_memory(PGDAT()), has_memory(PGDAT(attack=PGD(start="memory")))
        (False, True)
    """
    attack = attack_of(objective)
    return attack is not None and attack.start == "memory"


def add_memory(
    objective: Objective, state: nn.Module, *, image_shape: tuple[int, int, int], num_examples: int | None
) -> None:
    """Add the buffer to an objective's state, if its attack has a memory; from torch's own random generator.

    Raises:
        UserError: the number of training images is not known.

    Example:
        >>> from uiat import PGD, PGDAT
        >>> state = nn.Module()
        >>> add_memory(PGDAT(attack=PGD(start="memory")), state, image_shape=(1, 8, 8), num_examples=100)
        >>> state.attack_memory.shape, state.attack_memory.dtype
        (torch.Size([100, 1, 8, 8]), torch.int8)
    """
    if not has_memory(objective):
        return
    if num_examples is None:
        raise UserError('start="memory" keeps a perturbation for each training image: give num_examples')
    first = torch.randint(-LEVELS, LEVELS + 1, (num_examples, *image_shape), dtype=torch.int8)
    state.register_buffer(NAME, first)


def recall_starts(objective: Objective, state: nn.Module, batch: Batch) -> Batch:
    """Return the batch with the images that the attack starts from, where it has a memory.

    Args:
        objective: the objective whose attack it is, with the radius of the whole run.
        state: the state that holds the buffer.
        batch: the batch, augmented as `batch.moves` says.
    """
    if not has_memory(objective):
        return batch
    rows = state.get_buffer(NAME)[positions_of(batch)]
    if rows.shape[1:] != batch.x.shape[1:]:
        made, here = tuple(rows.shape[1:]), tuple(batch.x.shape[1:])
        raise UserError(f"perturbations were remembered for images of shape {made}, but those of the batch are {here}")
    delta = torch.empty_like(batch.x).copy_(rows if batch.moves is None else move(rows, batch.moves))
    return replace(batch, x_start=batch.x + delta * _unit(objective))


def remember_ends(objective: Objective, state: nn.Module, batch: Batch, examples: Examples) -> None:
    """Keep what the attack has found, where it has a memory; pixels that the crop has cut off stay as they were.

    Every process writes the rows of the whole batch, so that all of them hold the same.
    """
    if not has_memory(objective) or examples.x_adv is None:
        return
    memory, rank, index = state.get_buffer(NAME), current_rank(), positions_of(batch)
    delta = (examples.x_adv.detach() - batch.x) / _unit(objective)
    found = delta.round().clamp(-LEVELS, LEVELS).to(torch.int8)
    if batch.moves is not None:
        found = move_back(found, batch.moves, before=memory[index])
    memory[rank.concatenate(index)] = rank.concatenate(found)


def _unit(objective: Objective) -> float:
    attack = attack_of(objective)
    assert attack is not None
    return float(attack.threat.epsilon) / LEVELS
