"""Activation checkpointing: blocks recompute their activations in the backward pass instead of keeping them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from uiat.errors import UserError
from uiat.models.modes import repeated_pass


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Find the blocks of a model: modules of several layers in an nn.Sequential; none inside another.

    Raises:
        UserError: the model has no such module.

    Example:
        >>> from uiat import models
        >>> model = models.build("preact-resnet8", num_classes=10, image_shape=(3, 32, 32))
        >>> len(find_blocks(model))
        3
    """
    blocks: list[nn.Module] = []
    inside = set[nn.Module]()
    for chain in model.modules():
        if isinstance(chain, nn.Sequential) and chain not in inside:
            new = [child for child in chain if not isinstance(child, nn.Sequential) and any(child.children())]
            blocks += new
            inside.update(module for block in new for module in block.modules())
    if not blocks:
        raise UserError(
            "recompute needs a model of blocks (modules of several layers in an nn.Sequential), not this one"
        )
    return blocks


@contextmanager
def checkpointed_blocks(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Keep only the outputs of these blocks in passes inside (Chen et al. 2016, "sublinear memory cost").

    The backward pass has to be inside too. BatchNorm statistics are written by the first computation and not by the
    second, which is in the modes of the first whatever they have become since. Afterwards the model is as it was:
    nothing of this is in its state or in a copy of it.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> with checkpointed_blocks([model[1]]):
        ...     model(torch.ones(1, 2)).sum().backward()
    """

    def contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _FirstPassAgain(block)

    for block in blocks:
        again = partial(contexts, block)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=again)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


class _FirstPassAgain:
    """Entered, a block is in the modes that it was in when this was made, and its statistics are left alone.

    A loss may pass the model in a context that has ended when its backward pass computes the block again, such as
    `frozen_statistics`. Second derivatives compute it twice, so this may be entered several times.
    """

    def __init__(self, block: nn.Module) -> None:
        self._block, self._modes, self._entered = block, _modes_of(block), list[ExitStack]()

    def __enter__(self) -> None:
        inside = ExitStack()
        inside.callback(_set_modes, _modes_of(self._block))
        _set_modes(self._modes)
        inside.enter_context(repeated_pass(self._block))
        self._entered.append(inside)

    def __exit__(self, *error: object) -> None:
        self._entered.pop().close()


def _modes_of(block: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    names = ("training", "track_running_stats")
    return [(m, name, getattr(m, name)) for m in block.modules() for name in names if hasattr(m, name)]


def _set_modes(modes: Sequence[tuple[nn.Module, str, Any]]) -> None:
    for module, name, value in modes:
        setattr(module, name, value)
