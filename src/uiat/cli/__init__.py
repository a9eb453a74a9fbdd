"""The command line: `uiat train | evaluate | show | cost | recipes | paper`."""

from uiat.cli.app import main

__all__ = ["main"]
