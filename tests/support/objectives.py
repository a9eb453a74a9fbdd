"""One of each training objective, small enough for a test, and what their formulas need."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from support.helpers import batch, cnn, gradients, pgd
from uiat import (
    ADR,
    ARD,
    DHAT,
    DKL,
    FAT,
    GAIRAT,
    HAT,
    LBGAT,
    MLCAT,
    PGDAT,
    RSLAD,
    UIAT,
    Batch,
    Examples,
    GeneratorInverse,
    InstanceInverse,
    Mart,
    Score,
    SelfAdaptive,
    Squeeze,
    Standard,
    Trades,
    UniversalInverse,
    total,
)
from uiat.objectives.networks import add_networks, add_teacher, teacher_method

UNIVERSAL = UniversalInverse(radius=0.05, step_size=0.02)
INSTANCE = InstanceInverse(radius=0.05, step_size=0.02, steps=3)
GENERATOR = GeneratorInverse(radius=0.05, width=4, learning_rate=0.01)
ONE_OFF = replace(UNIVERSAL, epoch=1)
KL_ATTACK = pgd(loss="kl", start="gaussian")


def uiat(**fields: object) -> UIAT:
    return UIAT(**{"attack": pgd(), "inverse": UNIVERSAL, **fields})  # type: ignore[arg-type]


OBJECTIVES = {
    "standard": Standard(),
    "pgd-at": PGDAT(attack=pgd()),
    "trades": Trades(attack=KL_ATTACK),
    "mart": Mart(attack=pgd()),
    "uiat": uiat(),
    "uiat detached": uiat(inverse_gradient=False, weight=1.0),
    "iat": uiat(inverse=INSTANCE),
    "one-off": uiat(inverse=ONE_OFF),
    "generator": uiat(inverse=GENERATOR),
    "class momentum": uiat(momentum="class", kl="adversarial-inverse"),
    "example momentum": uiat(momentum="example", inverse_gradient=False, weight=1.0),
    "hat": HAT(attack=KL_ATTACK),
    "score": Score(attack=pgd(loss="squared", start="gaussian")),
    "dkl": DKL(attack=KL_ATTACK, squared_weight=2.0, weight=1.0),
    "lbgat": LBGAT(attack=KL_ATTACK, weight=2.0),
    "fat": FAT(attack=pgd(), tau_epochs=(1,)),
    "fat-trades": FAT(attack=KL_ATTACK, form="trades"),
    "sat": SelfAdaptive(attack=KL_ATTACK, from_epoch=1),
    "mlcat": MLCAT(attack=pgd(), least_loss=0.5),  # 1.5 is above the chance level of 4 classes
    "squeeze": Squeeze(attack=KL_ATTACK),
    "dhat": DHAT(attack=pgd(), inverse=replace(INSTANCE, regulariser="logit")),
    "ard": ARD(attack=pgd(), alpha=0.7),
    "rslad": RSLAD(attack=KL_ATTACK),
    "adr": ADR(attack=pgd(loss="kl"), interpolations=(0.1, 0.3), epochs=3),
    "gairat": GAIRAT(attack=pgd(), from_epoch=1),
}


def state_of(objective: Any, *, n: int = 12, model: nn.Module | None = None, teacher: nn.Module | None = None) -> Any:
    """The state of an objective, with the networks that it keeps: made of `model`, and another one as its teacher."""
    state: nn.Module = objective.init(num_classes=4, image_shape=(1, 8, 8), num_examples=n)
    add_networks(objective, state, cnn() if model is None else model)
    if teacher_method(objective) is not None:
        add_teacher(state, cnn(seed=7) if teacher is None else teacher)
    return state


def double() -> tuple[nn.Module, Batch]:
    """A network and a batch in float64, in eval mode: for formulas that hold to the last digits."""
    b = batch()
    return cnn().double().eval(), Batch(b.x.double(), b.y, b.index)


def assert_formula(objective: Any, model: nn.Module, examples: Examples, expected: torch.Tensor) -> None:
    """The loss of each example is the expected one, and so is its gradient for every parameter of the model."""
    found = total(objective.loss(model, examples))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    pairs = list(zip(gradients(found.mean(), model), gradients(expected.mean(), model), strict=True))
    assert any(mine.abs().max() > 1e-6 for mine, _ in pairs)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


def assert_statistics_of(objective: Any, model: nn.Module, examples: Examples, *passed: torch.Tensor) -> None:
    """The loss moves the running statistics of BatchNorm as passes of these images, in train mode and this order."""
    expected = copy.deepcopy(model).train()
    for x in passed:
        expected(x)
    model.train()
    objective.loss(model, examples)
    found = model.state_dict()
    assert any(name.endswith("running_mean") for name in found)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found[name], value)


def probabilities(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """p(x) in eval mode, with nothing left behind."""
    training = model.training
    model.eval()
    with torch.no_grad():
        p = model(x).softmax(1)
    model.train(training)
    return p


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q), spelt out."""
    return (p * (p.log() - q.log())).sum(1)


# The example of CONTRIBUTING.md, with fields of more kinds.
LOGIT_PAIRING = '''
from dataclasses import dataclass, field
from typing import Annotated, Literal

from torch import Tensor, nn

import uiat
from uiat import losses
from uiat.checks import Between
from uiat.threat import Threat


@dataclass(frozen=True, kw_only=True)
class LogitPairing:
    """CE(f(x_adv), y) + weight * mean((f(x_adv) - f(x))^2)."""

    name: str = "logit-pairing"
    attack: uiat.PGD = field(default_factory=lambda: uiat.PGD(threat=uiat.Linf(0.1), step_size=0.03, steps=5))
    weight: float = 0.5
    share: Annotated[float, Between(0, 1)] = 1.0
    mode: Literal["smooth", "sharp"] = "smooth"
    radius: float = 0.1
    power: int = 2

    def __post_init__(self) -> None:
        if self.power == 0:
            raise ValueError("a power of 0 pairs nothing")

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
        logits, adv_logits = model(examples.x), model(examples.x_adv)
        return {
            "adv_ce": losses.cross_entropy(adv_logits, examples.y),
            "pairing": self.weight * self.share * (adv_logits - logits).abs().pow(self.power).mean(dim=1),
            "correct": adv_logits.argmax(dim=1) == examples.y,
        }
'''


def write_objective(path: Path, *, more: str = "") -> None:
    """Write LogitPairing to a file of the user's own."""
    path.write_text(f"{LOGIT_PAIRING}\n{more}\n")
