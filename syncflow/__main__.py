"""``python -m syncflow``: the command line."""

import sys

from syncflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
