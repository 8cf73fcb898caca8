"""Makes a process a place where a program's functions find what they find at home: modules, arguments, no input to wait for."""

import io
import os
import sys
from contextlib import suppress

from engine.handover import Surroundings


def settle_in(surroundings: Surroundings) -> None:
    """To be called once, before functions are looked for."""
    if surroundings.import_path:
        known = set(surroundings.import_path)
        sys.path[:] = [*surroundings.import_path, *(one for one in sys.path if one not in known)]
    if surroundings.argv:
        sys.argv[:] = surroundings.argv
    if (
        surroundings.folder
    ):  # the program may have gone elsewhere since, and this be a worker that replaces another
        with suppress(OSError):
            os.chdir(surroundings.folder)
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # whole lines, as they come; and nothing that cannot be said fails a row
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    # Standard input is the parent's pipe: a function that reads from it finds it empty instead of waiting for ever.
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as the process lives
