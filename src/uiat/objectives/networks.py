"""Networks that a method keeps beside the model: a teacher, a running average of it, one that is trained with it.

A method declares them by one of two names. `teacher_method` says how a network is trained that it only asks: "standard"
for a naturally trained one, "pgd-at" for a robust one; it is given to the state as `state.teacher` and is no part of a
checkpoint. `networks(model)` returns networks that change with the model's steps; they are submodules of the state, and
so are saved and resumed with it.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.models.modes import find_frozen_parts, train_mode
from uiat.models.outputs import logits_of
from uiat.objectives.base import Objective

TeacherMethod = Literal["standard", "pgd-at"]


class FrozenNetwork:
    """A network in eval mode that gives logits without gradients; no module, so that no state saves its weights.

    Args:
        network: maps images to logits; it is put into eval mode.

    Example:
        >>> teacher = FrozenNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
        >>> teacher(torch.rand(3, 1, 2, 2)).requires_grad
        False
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of images."""
        logits: Tensor = logits_of(self.network(x))
        return logits


class AverageNetwork(nn.Module):
    """An exponential average of a model's weights and floating-point buffers, in eval mode (the mean teacher of ADR).

    Args:
        model: the model, which is copied.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = AverageNetwork(model)
        >>> average.update(model, decay=0.9)  # of equal weights
        >>> bool(average.network.weight == model.weight)
        True
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, *, decay: float) -> None:
        """Update w <- decay w + (1 - decay) w_model; counts of batches are copied."""
        pairs = list(zip(self.network.parameters(), model.parameters(), strict=True))
        for buffer, value in zip(self.network.buffers(), model.buffers(), strict=True):
            if buffer.is_floating_point():
                pairs.append((buffer, value))  # type: ignore[arg-type]
            else:
                buffer.copy_(value)
        torch._foreach_lerp_([old for old, _ in pairs], [new.detach() for _, new in pairs], 1 - decay)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images."""
        logits: Tensor = logits_of(self.network(x))
        return logits


def copy_for_training(model: nn.Module) -> nn.Module:
    """Return a copy of a model to be trained beside it, from the same weights; parts set aside stay in eval mode.

    Example:
        >>> copy_for_training(nn.Linear(2, 2).eval()).training
        True
    """
    network = copy.deepcopy(model)
    train_mode(network, find_frozen_parts(network))
    return network


def teacher_method(objective: Objective) -> TeacherMethod | None:
    """Return the name of the method by which an objective's teacher is trained; None for one without a teacher.

    Example:
        >>> from uiat import HAT, PGDAT
        >>> teacher_method(HAT()), teacher_method(PGDAT())
        ('standard', None)
    """
    return getattr(objective, "teacher_method", None)


def add_networks(objective: Objective, state: nn.Module, model: nn.Module) -> None:
    """Add the networks that change with the model's steps to an objective's state, if it has any.

    Example:
        >>> from uiat import LBGAT
        >>> state, model = nn.Module(), nn.Linear(2, 2)
        >>> add_networks(LBGAT(), state, model)
        >>> [name for name, _ in state.named_children()]
        ['natural']
    """
    if (make := getattr(objective, "networks", None)) is not None:
        for name, network in make(model).items():
            state.add_module(name, network)


def add_teacher(state: nn.Module, teacher: nn.Module) -> None:
    """Give a state its teacher, on the device of the state.

    Example:
        >>> state = nn.Module()
        >>> add_teacher(state, nn.Linear(2, 2))
        >>> list(state.state_dict())
        []
    """
    state.teacher = FrozenNetwork(teacher)  # type: ignore[assignment]


def ask_teacher(state: nn.Module, x: Tensor) -> Tensor:
    """Return the teacher's logits (B, K) for images.

    Example:
        >>> state = nn.Module()
        >>> add_teacher(state, nn.Linear(4, 2))
        >>> ask_teacher(state, torch.rand(3, 4)).shape
        torch.Size([3, 2])
    """
    return teacher_in(state)(x)


def teacher_in(state: nn.Module) -> FrozenNetwork:
    """Return the teacher in an objective's state.

    Raises:
        UserError: it has none yet.

    Example:
        >>> teacher_in(nn.Module())
        Traceback (most recent call last):
        uiat.errors.UserError: the state has no teacher: uiat.objectives.networks.add_teacher gives it one
    """
    teacher = getattr(state, "teacher", None)
    if not isinstance(teacher, FrozenNetwork):
        raise UserError("the state has no teacher: uiat.objectives.networks.add_teacher gives it one")
    return teacher


def network_in(state: nn.Module, name: str) -> nn.Module:
    """Return a network in an objective's state by its name.

    Raises:
        UserError: it has none of this name.

    Example:
        >>> network_in(nn.Module(), "average")
        Traceback (most recent call last):
        uiat.errors.UserError: the state has no network 'average': uiat.objectives.networks.add_networks adds it
    """
    network = dict(state.named_children()).get(name)
    if network is None:
        raise UserError(f"the state has no network {name!r}: uiat.objectives.networks.add_networks adds it")
    return network


def networks_in(state: nn.Module) -> list[nn.Module]:
    """Return all networks in an objective's state: those that change with the model, and the teacher.

    Example:
        >>> state = nn.Module()
        >>> add_teacher(state, nn.Linear(2, 2))
        >>> networks_in(state)
        [Linear(in_features=2, out_features=2, bias=True)]
    """
    teacher = getattr(state, "teacher", None)
    return [*state.children(), *([teacher.network] if isinstance(teacher, FrozenNetwork) else [])]
