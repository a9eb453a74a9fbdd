"""What the self-checks look at: a frozen model, images, and short attacks on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from uiat.attacks import PGD, Search
from uiat.evaluation.engine.search_runner import search
from uiat.models.inspect import Target
from uiat.shapes import Bool
from uiat.threat import Threat


@dataclass(frozen=True)
class Case:
    """A frozen model in eval mode, and images to examine it on."""

    target: Target
    x: Tensor
    y: Tensor
    threat: Threat
    seed: int
    batch_size: int
    plain: str = ""  # names of the attacks of the evaluation, where all are plain ones
    left: Bool[Tensor, "n"] | None = None  # mask of the images that these left robust

    @property
    def model(self) -> nn.Module:
        """The model itself."""
        return self.target.model

    def map_batches(self, function: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply `function(images, labels)` batch by batch, and join the results on the CPU."""
        batches = zip(x.split(self.batch_size), self.y.split(self.batch_size), strict=True)
        return torch.cat([function(images, labels).cpu() for images, labels in batches])

    def find_broken(self, attack: Search | PGD, mask: Tensor | None = None) -> Tensor:
        """Return a mask of the images that an attack breaks, of all images or of those in `mask`."""
        broken = torch.zeros(len(self.y), dtype=torch.bool)
        rows = torch.arange(len(self.y)) if mask is None else mask.nonzero().flatten()
        if len(rows) == 0:
            return broken
        x, y = self.x[rows.to(self.x.device)], self.y[rows.to(self.y.device)]
        if isinstance(attack, PGD):
            generator = torch.Generator(x.device).manual_seed(self.seed)

            def is_broken(images: Tensor, labels: Tensor) -> Tensor:
                logits = self.logits(attack.perturb(self.model, images, labels, generator=generator))
                # NaN would win every argmax, and so count as an answer.
                return (logits.argmax(dim=1) != labels) & ~logits.isnan().any(dim=1)

            broken[rows] = replace(self, y=y).map_batches(is_broken, x)
            return broken
        found, _ = search(
            attack,
            self.model,
            x,
            y,
            rows,
            num_classes=self.target.classes,
            device=x.device,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        broken[rows] = found.cpu()
        return broken

    def logits(self, x: Tensor) -> Tensor:
        """Compute the outputs, without a gradient."""
        with torch.no_grad():
            logits: Tensor = self.model(x)
        return logits
