"""`python -m uiat` is the command `uiat`."""

import sys

from uiat.cli import main

if __name__ == "__main__":
    sys.exit(main())
