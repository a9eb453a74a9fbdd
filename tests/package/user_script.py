"""What a user writes: checked by mypy --strict and pyright, run in an environment without extras (`make package`)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import uiat
from uiat.losses import cross_entropy
from uiat.threat import Threat


def make_images(n: int) -> tuple[Tensor, Tensor]:
    """Return images (n, 1, 4, 4), dark (0) or bright (1), and their labels."""
    y = torch.arange(n) % 2
    return 0.4 * torch.rand(n, 1, 4, 4) + 0.6 * y[:, None, None, None], y


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A method of one's own: cross-entropy on what the attack returns."""

    name: str = "own"
    attack: uiat.PGD = field(default_factory=lambda: uiat.PGD(threat=uiat.Linf(0.1), steps=2))

    @property
    def threat(self) -> Threat:
        return self.attack.threat

    def init(
        self, *, num_classes: int, image_shape: tuple[int, int, int], num_examples: int | None = None
    ) -> nn.Module:
        return nn.Module()

    def perturb(self, model: nn.Module, batch: uiat.Batch, state: nn.Module, *, epoch: int) -> uiat.Examples:
        return uiat.Examples(batch.x, batch.y, self.attack.perturb(model, batch.x, batch.y))

    def loss(self, model: nn.Module, examples: uiat.Examples) -> dict[str, Tensor]:
        return {"adv_ce": cross_entropy(model(examples.x_adv), examples.y)}


def train(objective: uiat.Objective) -> uiat.Trained:
    x, y = make_images(64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    settings = uiat.Optimisation(epochs=10)
    return uiat.fit(model, (x, y), objective=objective, optimisation=settings, batch_size=16, progress=False)


def main() -> None:
    torch.manual_seed(0)
    universal = uiat.UIAT(
        attack=uiat.PGD(threat=uiat.Linf("0.1"), step_size=0.05, steps=2),
        inverse=uiat.UniversalInverse(radius=0.05, step_size=0.01),
    )
    x, y = make_images(64)
    for objective in (universal, Noise()):
        trained = train(objective)
        result: uiat.EvaluationResult = uiat.evaluate(
            trained.model, x, y, threat=uiat.Linf(0.1), attacks=["clean", "pgd-5"]
        )
        robust: float = result.accuracy["worst"]
        verdict: str = result.verdict
        x_adv: Tensor = universal.attack(trained.model, x, y)
        assert robust > 0.9, result
        assert verdict
        assert float((x_adv - x).abs().max()) <= 0.1 + 1e-6
    run: uiat.Run = uiat.override(uiat.recipes.get("digits-uiat"), [("seed", "1")])
    print(f"uiat {uiat.__version__}: {run.name}, robust accuracy {robust:.0%}")


if __name__ == "__main__":
    main()
