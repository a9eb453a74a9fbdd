"""Inverse adversaries (UIAT, CVPR 2023): instance-wise and class-universal, their loss, their state, the result."""

from uiat.inverse.adversary import InstanceInverse, Inverse, InverseAdversary, UniversalInverse
from uiat.inverse.loss import Regulariser, inverse_loss
from uiat.inverse.state import InverseState, Momentum, MomentumStart
from uiat.inverse.universal import UniversalPerturbation, apply_universal, class_means, load_inverse

__all__ = [
    "InstanceInverse",
    "Inverse",
    "InverseAdversary",
    "InverseState",
    "Momentum",
    "MomentumStart",
    "Regulariser",
    "UniversalInverse",
    "UniversalPerturbation",
    "apply_universal",
    "class_means",
    "inverse_loss",
    "load_inverse",
]
