"""Adversarial training in a loop of Hugging Face Accelerate, with the pieces that `uiat.make_step` puts together.

    pip install 'uiat[accelerate]' && accelerate launch examples/accelerate_loop.py

`perturb` solves the inner problems and is the only place where the objective's state changes; `loss` returns a value an
example. Accelerate places the model and the batches, and does the backward pass in the precision that it was given.
"""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import uiat
from uiat.objectives import Objective, total


def train(
    accelerator: Accelerator,
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    loader: Iterable[tuple[Tensor, Tensor]],
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    epochs: int,
) -> dict[str, float]:
    """Train a model, and return the means of the loss terms over the last epoch.

    Args:
        accelerator: the accelerator.
        model: maps images in [0, 1] to logits.
        objective: such as `uiat.UIAT()`; methods with a second network (LBGAT) or a teacher need `uiat.make_step`.
        optimizer: over the model's parameters.
        loader: gives (images in [0, 1], labels).
        num_classes: number of classes.
        image_shape: (channels, height, width).
        epochs: passes over the loader.
    """
    state = objective.init(num_classes=num_classes, image_shape=image_shape).to(accelerator.device)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    plain = accelerator.unwrap_model(model)  # an attack needs no gradients of weights, and so no other process
    means: dict[str, list[Tensor]] = {}
    for epoch in range(epochs):
        model.train()
        means = {}
        for x, y in loader:
            examples = objective.perturb(plain, uiat.Batch(x, y), state, epoch=epoch)
            terms = objective.loss(model, examples)
            accelerator.backward(total(terms).mean())
            optimizer.step()
            optimizer.zero_grad()
            for name, value in terms.items():
                means.setdefault(name, []).append(value.detach().float().mean())
    return {name: torch.stack(values).mean().item() for name, values in means.items()}


def main() -> None:
    """Train a small network on digits for three epochs."""
    torch.manual_seed(0)
    x, y = uiat.data.tensors("digits", "train")
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
    attack = uiat.PGD(threat=uiat.Linf(0.1), step_size=0.025, steps=5)
    objective = uiat.UIAT(attack=attack, inverse=uiat.UniversalInverse(radius=0.05, step_size=0.0125))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    shapes = {"num_classes": 10, "image_shape": (1, 8, 8)}
    print(train(Accelerator(), model, objective, optimizer, loader, **shapes, epochs=3))


if __name__ == "__main__":
    main()
