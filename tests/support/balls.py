"""Lengths of perturbations, and how far rounding alone may take one out of its ball."""

import math

import torch

from uiat.threat import L1, Linf


def slack(threat, x):
    """How far rounding alone can take a projected image out of the ball, in the norm of the threat model.

    Linf: x - epsilon and x + epsilon are rounded once, by at most half a unit in the last place of a number below 2.
    L2: the length, its reciprocal times epsilon and the product are each rounded, a relative error of a few units of
    epsilon; adding x rounds every pixel once more, and n such errors are at most sqrt(n) times one of them long.
    L1: likewise, but n such errors add up.
    """
    unit = torch.finfo(x.dtype).eps
    if isinstance(threat, Linf):
        return unit
    if isinstance(threat, L1):
        return 4 * unit * float(threat.epsilon) + unit * x[0].numel()
    return 4 * unit * float(threat.epsilon) + unit * math.sqrt(x[0].numel())


def length(threat, delta):
    return threat.length(delta.double())
