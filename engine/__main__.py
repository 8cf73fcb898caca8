"""``python -m engine``, and the console script ``engine``."""

import sys

from engine.cli.early import ended_by_signals


def main() -> int:
    """Load the program and run it; returns the exit code."""
    with ended_by_signals("interrupted before anything was begun."):
        from engine.cli.main import main as run

        return run()


if __name__ == "__main__":
    sys.exit(main())
