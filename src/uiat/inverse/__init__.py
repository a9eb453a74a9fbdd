"""Inverse adversaries (UIAT, CVPR 2023): instance-wise, class-universal, by a generator; their loss, state, result."""

from uiat.inverse.adversary import InstanceInverse, InverseAdversary, UniversalInverse
from uiat.inverse.generator import GeneratorInverse, InverseGenerator, load_generator
from uiat.inverse.loss import Inverse, Regulariser, inverse_loss
from uiat.inverse.state import InverseState, Momentum, MomentumStart
from uiat.inverse.universal import UniversalPerturbation, apply_universal, class_means, load_inverse
from uiat.inverse.universal_attack import FitImages, UniversalAttack

__all__ = [
    "FitImages",
    "GeneratorInverse",
    "InstanceInverse",
    "Inverse",
    "InverseAdversary",
    "InverseGenerator",
    "InverseState",
    "Momentum",
    "MomentumStart",
    "Regulariser",
    "UniversalAttack",
    "UniversalInverse",
    "UniversalPerturbation",
    "apply_universal",
    "class_means",
    "inverse_loss",
    "load_generator",
    "load_inverse",
]
