"""The command line: `uiat train | evaluate | sweep | report | show | recipes | paper`."""

from uiat.cli.app import main

__all__ = ["main"]
