"""The command line: `uiat train | evaluate | sweep | analyse | report | show | cost | recipes | paper`."""

from uiat.cli.app import main

__all__ = ["main"]
