"""Attacks: first-order ones as settings of one projected-gradient loop, and searches that follow each point."""

from uiat.attacks.apgd import APGD
from uiat.attacks.fab import FAB
from uiat.attacks.gradient import Gradient, InnerLoss, input_gradient, projected_gradient
from uiat.attacks.pgd import FGSM, FGSMRS, PGD
from uiat.attacks.points import Search
from uiat.attacks.square import Square

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "FGSMRS",
    "PGD",
    "Gradient",
    "InnerLoss",
    "Search",
    "Square",
    "input_gradient",
    "projected_gradient",
]
