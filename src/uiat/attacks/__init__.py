"""Attacks: settings of one projected-gradient loop, searches that follow each image, and callables from outside."""

from uiat.attacks.apgd import APGD
from uiat.attacks.apgd_l1 import SparseAPGD
from uiat.attacks.external import External
from uiat.attacks.fab import FAB
from uiat.attacks.fmn import FMN, minimum_norm
from uiat.attacks.gradient import Gradient, InnerLoss, input_gradient, projected_gradient
from uiat.attacks.noise import Noise
from uiat.attacks.patch import Patch, PatchAttack
from uiat.attacks.pgd import FGSM, FGSMRS, NFGSM, PGD
from uiat.attacks.recolour import Recolour
from uiat.attacks.search import Search
from uiat.attacks.spatial import Spatial
from uiat.attacks.square import Square
from uiat.attacks.targeted import TargetedPGD
from uiat.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "FGSMRS",
    "NFGSM",
    "FMN",
    "PGD",
    "External",
    "Gradient",
    "InnerLoss",
    "Noise",
    "Patch",
    "PatchAttack",
    "Recolour",
    "Search",
    "SparseAPGD",
    "Spatial",
    "Square",
    "TargetedPGD",
    "Transfer",
    "input_gradient",
    "minimum_norm",
    "projected_gradient",
]
