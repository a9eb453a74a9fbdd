"""Certified lower bounds on robust accuracy, beside the upper bounds that attacks give.

`certify_bounds` proves images robust under Linf with interval and linear bounds; `certify_smoothing` certifies an L2
radius of each image, of the model smoothed with Gaussian noise.
"""

from uiat.certify.linf import CertifiedResult, Contradiction, certify_bounds
from uiat.certify.network import trace_network
from uiat.certify.smoothing import SmoothedResult, Smoothing, certify_smoothing

__all__ = [
    "CertifiedResult",
    "Contradiction",
    "SmoothedResult",
    "Smoothing",
    "certify_bounds",
    "certify_smoothing",
    "trace_network",
]
