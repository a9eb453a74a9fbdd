"""Classifiers from images in [0, 1] to logits: built-in, from timm, or the user's own, all by name."""

from uiat.models.build import build, is_own_code, names
from uiat.models.classifier import Classifier, Normalize
from uiat.models.inspect import check_model, check_training

__all__ = ["Classifier", "Normalize", "build", "check_model", "check_training", "is_own_code", "names"]
