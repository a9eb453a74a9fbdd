"""Checks of the first batch of a training step, with the model and the optimiser that it meets."""

from torch import nn
from torch.optim.optimizer import Optimizer

from uiat.checks import check_shapes, check_values
from uiat.data import Batch
from uiat.errors import UserError
from uiat.inverse.loss import check_features
from uiat.models import check_model, check_training
from uiat.objectives import Objective
from uiat.objectives.abilities import regulariser_of, require_soft_labels
from uiat.training.optimizer import check_optimizer


def check_first_batch(
    batch: Batch,
    model: nn.Module,
    optimizer: Optimizer,
    objective: Objective,
    *,
    num_classes: int,
    image_shape: tuple[int, ...],
) -> None:
    """Refuse what cannot be trained on or with, in the sentences of `uiat.fit`.

    The model is run on a few images, in eval and in train mode, and is left as it was.

    Args:
        batch: images in [0, 1] of `image_shape`, and labels below `num_classes`.
        model: maps images to logits (B, K).
        optimizer: over the model's parameters.
        objective: takes the soft labels of mixed images, if the batch has them.
        num_classes: K.
        image_shape: (C, H, W).

    Raises:
        UserError: any of them is not what it should be.

    Example:
        >>> import torch
        >>> from uiat import PGDAT
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> batch = Batch(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), torch.arange(3))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> check_first_batch(batch, model, optimizer, PGDAT(), num_classes=2, image_shape=(1, 2, 2))
    """
    if not isinstance(batch, Batch):
        raise UserError(f"a step takes a uiat.Batch(x, y), not a {type(batch).__name__}")
    if batch.soft_labels is not None:
        require_soft_labels(objective)
    check_shapes(batch.x, batch.y)
    check_values(batch.x, batch.y, num_classes=num_classes)
    if tuple(batch.x.shape[1:]) != tuple(image_shape):
        raise UserError(f"the images have shape {tuple(batch.x.shape[1:])}, but image_shape is {tuple(image_shape)}")
    check_optimizer(optimizer, model)
    check_model(model, batch.x, num_classes)
    if regulariser_of(objective).startswith("feature"):
        check_features(model, batch.x)
    if len(batch.x) > 1:  # BatchNorm has no statistics of one image
        check_training(model, batch.x, num_classes)
