"""First-order attacks as settings of one projected-gradient loop."""

from uiat.attacks.gradient import Gradient, InnerLoss, input_gradient, projected_gradient
from uiat.attacks.pgd import FGSM, FGSMRS, PGD

__all__ = ["FGSM", "FGSMRS", "PGD", "Gradient", "InnerLoss", "input_gradient", "projected_gradient"]
