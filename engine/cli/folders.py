"""Which state folder a user means by RUN: the folder itself, or the output it belongs to."""

from pathlib import Path

from engine.core.errors import UsageError
from engine.store import DATABASE_NAME


def state_folder(run: str) -> Path:
    """The state folder of ``run``. Raises UsageError when there is none."""
    for folder in (Path(run), Path(f"{run}.run")):
        if (folder / DATABASE_NAME).is_file():
            return folder
    raise UsageError(
        f"There is no run at {run}: neither it nor {run}.run is a state folder. Give the output's path."
    )
