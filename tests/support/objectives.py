"""One of each training objective, small enough for a test, and what their formulas need."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from support.helpers import pgd
from uiat import PGDAT, UIAT, InstanceInverse, Mart, Standard, Trades, UniversalInverse

UNIVERSAL = UniversalInverse(radius=0.05, step_size=0.02)
INSTANCE = InstanceInverse(radius=0.05, step_size=0.02, steps=3)
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
    "class momentum": uiat(momentum="class", kl="adversarial-inverse"),
    "example momentum": uiat(momentum="example", inverse_gradient=False, weight=1.0),
}


def state_of(objective: Any, *, n: int = 12) -> nn.Module:
    state: nn.Module = objective.init(num_classes=4, image_shape=(1, 8, 8), num_examples=n)
    return state


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
