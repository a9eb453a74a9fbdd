"""One of each training objective, small enough for a test."""

from dataclasses import replace

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
