"""Activation checkpointing: what is inside a block is computed again for the backward pass instead of being kept."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from uiat.errors import UserError
from uiat.models.modes import repeated_pass


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: modules of several layers in a chain (nn.Sequential) of them; none inside another.

    Raises:
        UserError: there are none.

    Example:
        >>> from uiat import models
        >>> model = models.build("preact-resnet8", num_classes=10, image_shape=(3, 32, 32))
        >>> len(find_blocks(model))
        3
    """
    found: list[nn.Module] = []
    inside = set[nn.Module]()
    for chain in model.modules():
        if isinstance(chain, nn.Sequential) and chain not in inside:
            new = [child for child in chain if not isinstance(child, nn.Sequential) and any(child.children())]
            found += new
            inside.update(part for block in new for part in block.modules())
    if not found:
        raise UserError(
            "recompute needs a model of blocks (modules of several layers in an nn.Sequential), not this one"
        )
    return found


@contextmanager
def checkpointed_blocks(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, passes through these blocks keep their outputs alone (Chen et al. 2016, "sublinear memory cost").

    The backward pass belongs inside too. BatchNorm statistics are written by the first computation and not by the
    second. Outside, the model is as it was: nothing of this is in its state or in a copy of it.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> with checkpointed_blocks([model[1]]):
        ...     model(torch.ones(1, 2)).sum().backward()
    """

    def contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), repeated_pass(part)

    for part in parts:
        again = partial(contexts, part)
        part.forward = partial(checkpoint, part.forward, use_reentrant=False, context_fn=again)
    try:
        yield
    finally:
        for part in parts:
            del part.forward
