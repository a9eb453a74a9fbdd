"""The old place of `uiat.models.modes`, which own methods import from here."""

from uiat.models.modes import attacked, crafting, frozen_statistics, repeated_pass

__all__ = ["attacked", "crafting", "frozen_statistics", "repeated_pass"]
