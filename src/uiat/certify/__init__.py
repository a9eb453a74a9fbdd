"""Certified lower bounds on robust accuracy, beside the upper bounds that attacks give.

`certify_bounds` proves images robust under Linf with interval and linear bounds.
"""

from uiat.certify.linf import CertifiedResult, Contradiction, certify_bounds
from uiat.certify.network import trace_network

__all__ = ["CertifiedResult", "Contradiction", "certify_bounds", "trace_network"]
