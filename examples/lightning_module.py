"""Adversarial training in PyTorch Lightning: a module around an objective, and a callback that attacks the model.

    pip install 'uiat[lightning]' && python examples/lightning_module.py

These are the pieces that `uiat.make_step` puts together: `perturb` solves the inner problems, `loss` returns a value an
example. Lightning does the rest: the backward pass, the optimiser, precision, processes, checkpoints (the perturbations
are buffers of the module, and so are in them).
"""

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import uiat
from uiat.objectives import Objective, total


class RobustModule(lightning.LightningModule):
    """Trains a model with an objective on batches of (images in [0, 1], labels).

    Args:
        model: maps images to logits.
        objective: such as `uiat.UIAT()`; methods with a second network (LBGAT) or a teacher need `uiat.make_step`.
        num_classes: number of classes.
        image_shape: (channels, height, width).
        learning_rate: of SGD with momentum 0.9.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        learning_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.model, self.objective, self.learning_rate = model, objective, learning_rate
        self.state = objective.init(num_classes=num_classes, image_shape=image_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images."""
        logits: Tensor = self.model(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of a batch on the examples that the objective makes of it."""
        x, y = batch
        examples = self.objective.perturb(self.model, uiat.Batch(x, y), self.state, epoch=self.current_epoch)
        terms = self.objective.loss(self.model, examples)
        means = {f"train/{name}": value.detach().float().mean() for name, value in terms.items()}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=len(y))
        return total(terms).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the model's parameters."""
        return torch.optim.SGD(self.model.parameters(), lr=self.learning_rate, momentum=0.9, nesterov=True)


class RobustAccuracy(lightning.Callback):
    """Attacks held-out images after each epoch, and logs "robust", the fraction that stays correct.

    Validation steps of Lightning have no gradients, which an attack needs; the end of an epoch has.

    Args:
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        attack: the attack.
    """

    def __init__(self, x: Tensor, y: Tensor, attack: uiat.PGD) -> None:
        self.x, self.y, self.attack = x, y, attack

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Attack, and log."""
        x, y = self.x.to(module.device), self.y.to(module.device)
        x_adv = self.attack.perturb(module.model, x, y)  # in eval mode, and back
        module.eval()
        with torch.no_grad():
            robust = (module(x_adv).argmax(1) == y).float().mean()
        module.train()
        module.log("robust", robust)


def main() -> None:
    """Train a small network on digits for three epochs."""
    lightning.seed_everything(0)
    x, y = uiat.data.tensors("digits", "train")
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
    attack = uiat.PGD(threat=uiat.Linf(0.1), step_size=0.025, steps=5)
    objective = uiat.UIAT(attack=attack, inverse=uiat.UniversalInverse(radius=0.05, step_size=0.0125))
    module = RobustModule(model, objective, num_classes=10, image_shape=(1, 8, 8))
    callback = RobustAccuracy(x[:128], y[:128], attack)
    trainer = lightning.Trainer(max_epochs=3, callbacks=[callback], logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(TensorDataset(x[128:], y[128:]), batch_size=64, shuffle=True))
    print({name: round(value.item(), 3) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    main()
