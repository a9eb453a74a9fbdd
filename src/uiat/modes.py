"""The old place and the old names of `uiat.models.modes`, which methods kept outside the package import from here."""

from uiat.models.modes import attack_mode as attacked
from uiat.models.modes import frozen as crafting
from uiat.models.modes import frozen_statistics, repeated_pass

__all__ = ["attacked", "crafting", "frozen_statistics", "repeated_pass"]
