"""Context managers that change a model's mode, requires_grad flags and BatchNorm bookkeeping, and restore them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn

from uiat.errors import UserError
from uiat.models.outputs import logits_only

BatchNormMode = Literal["eval", "train"]
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, _BATCH_NORM)]


def find_frozen_parts(model: nn.Module) -> list[nn.Module]:
    """Return the outermost modules that are in eval mode and all of whose parameters are frozen.

    A part that a user has set aside like this, such as a pretrained body, stays in eval mode while the rest trains.

    Example:
        >>> body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False).eval()
        >>> find_frozen_parts(nn.Sequential(body, nn.Linear(2, 2)).train(False)) == [body]
        True
    """
    parameters = list(model.parameters())
    if not getattr(model, "training", False) and parameters and not any(p.requires_grad for p in parameters):
        return [model]
    return [part for child in model.children() for part in find_frozen_parts(child)]


def train_mode(model: nn.Module, set_aside: list[nn.Module]) -> None:
    """Put a model into train mode, but for the parts of `find_frozen_parts`, which are put into eval mode.

    Example:
        >>> body, head = nn.BatchNorm1d(2), nn.Linear(2, 2)
        >>> train_mode(nn.Sequential(body, head), [body])
        >>> body.training, head.training
        (False, True)
    """
    try:
        model.train()
    except NotImplementedError:
        message = "the model is an exported program, which has no train mode: train the module that it was made of"
        raise UserError(message) from None
    for part in set_aside:
        part.eval()


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, forward passes leave the BatchNorm running statistics as they are, in train mode too.

    A BatchNorm layer that does not track normalises by its batch in train mode and writes nothing.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.BatchNorm2d(3)).train()
        >>> with frozen_statistics(model):
        ...     _ = model(torch.ones(2, 3, 4, 4))
        >>> model[0].running_mean.tolist()
        [0.0, 0.0, 0.0]
    """
    # Only in train mode: in eval mode nothing is written, and not tracking would switch to batch statistics.
    tracking = [m for m in _batch_norms(model) if m.training and m.track_running_stats]
    for m in tracking:
        m.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for m in tracking:
            m.track_running_stats = True  # type: ignore[assignment]


@contextmanager
def repeated_pass(model: nn.Module) -> Iterator[None]:
    """Inside, forward passes repeat earlier ones, whose BatchNorm statistics have been counted already.

    Unlike in `frozen_statistics`, the layers do the very operations of the first pass, as a recomputation has to.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.BatchNorm2d(3)).train()
        >>> with repeated_pass(model):
        ...     _ = model(torch.ones(2, 3, 4, 4))
        >>> model[0].running_mean.tolist(), int(model[0].num_batches_tracked)
        ([0.0, 0.0, 0.0], 0)
    """
    writing = [m for m in _batch_norms(model) if m.training and m.track_running_stats]
    before = [(m.momentum, m.num_batches_tracked.clone()) for m in writing]  # type: ignore[operator]
    for m in writing:
        m.momentum = 0.0  # type: ignore[assignment]
    try:
        yield
    finally:
        for m, (momentum, count) in zip(writing, before, strict=True):
            m.momentum = momentum
            m.num_batches_tracked.copy_(count)  # type: ignore[operator]


@contextmanager
def frozen(model: nn.Module, *, batchnorm: BatchNormMode = "eval") -> Iterator[None]:
    """Inside, parameters have no gradients and the model is in attack mode; restored afterwards, errors included.

    Adversarial examples are crafted in it; UIAT and most of its peers do so in eval mode (a choice, see PAPER.md).

    Args:
        model: any module; each parameter's requires_grad is restored one by one.
        batchnorm: as in `attack_mode`.

    Example:
        >>> model = nn.Linear(2, 2).train()
        >>> with frozen(model):
        ...     print(model.training, model.weight.requires_grad)
        False False
        >>> print(model.training, model.weight.requires_grad)
        True True
    """
    norms = _norms_to_train(model, batchnorm)  # asked before all parameters are frozen
    trainable = [p for p in model.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        with _mode_with(model, norms):
            yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def attack_mode(model: nn.Module, *, batchnorm: BatchNormMode = "eval") -> Iterator[None]:
    """Inside, the model is in the mode in which it is attacked, its statistics frozen; parameters keep their gradients.

    One that returns an object or a dictionary with `logits` returns these, see `logits_only`.

    Args:
        model: any module; each submodule's mode is restored one by one.
        batchnorm: "eval" puts the whole model in eval mode (dropout off, running statistics). "train" puts only the
            BatchNorm layers in train mode (statistics of the batch, running statistics untouched), but for those of
            parts that are set aside (`find_frozen_parts`), which the training too passes in eval mode.

    Example:
        >>> model = nn.Linear(2, 2).train()
        >>> with attack_mode(model):
        ...     print(model.training, model.weight.requires_grad)
        False True
    """
    with _mode_with(model, _norms_to_train(model, batchnorm)):
        yield


def _norms_to_train(model: nn.Module, batchnorm: BatchNormMode) -> list[nn.Module]:
    """Return the BatchNorm layers that are not in a part that is set aside; a model that is frozen whole has none."""
    if batchnorm == "eval":
        return []
    aside = {id(m) for part in find_frozen_parts(model) if part is not model for m in part.modules()}
    return [m for m in _batch_norms(model) if id(m) not in aside]


@contextmanager
def _mode_with(model: nn.Module, norms: list[nn.Module]) -> Iterator[None]:
    """Inside, the whole model is in eval mode, but for these BatchNorm layers."""
    training = [m for m in model.modules() if getattr(m, "training", False)]  # frozen TorchScript has no mode
    for m in training:
        m.training = False
    in_eval = [m for m in norms if m not in training]
    for m in norms:
        m.training = True
    try:
        with frozen_statistics(model), logits_only(model):
            yield
    finally:
        for m in in_eval:
            m.training = False
        for m in training:
            m.training = True
