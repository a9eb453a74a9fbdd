"""Common corruptions, fifteen kinds at five severities (Hendrycks & Dietterich 2019), made or read from files.

Written out here, as no maintained library has them for tensors: imagecorruptions (last release 2020) takes one uint8
picture at a time, numpy's global random numbers, OpenCV and scikit-image; kornia lacks shot noise, glass, fog, frost.

Strengths and procedures are those that CIFAR-10-C and ImageNet-C were made with, by the authors' published code. What
differs: the random numbers are an example's own; the pictures are not rounded to 8 bits (nor, as ImageNet-C is, stored
as JPEG); the ice of frost is drawn by a procedure in place of crops of five photographs, in their colours and contrast.
"""

from uiat.evaluation.corruptions.accuracy import CorruptionResult, corruption_accuracy
from uiat.evaluation.corruptions.files import corruption_file_accuracy
from uiat.evaluation.corruptions.kinds import KINDS, SEVERITIES, corrupt, strengths

__all__ = [
    "KINDS",
    "SEVERITIES",
    "CorruptionResult",
    "corrupt",
    "corruption_accuracy",
    "corruption_file_accuracy",
    "strengths",
]
