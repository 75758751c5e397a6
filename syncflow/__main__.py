"""``python -m syncflow`` and ``syncflow``: the command line."""

import sys

from syncflow import terminal


def main() -> int:
    """Runs the command line; returns the process's exit code."""
    terminal.catch_interrupts()  # before the rest is imported

    from syncflow import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
