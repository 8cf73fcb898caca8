"""How a session ended: what the run makes its summary, its output and its exit code of."""

from dataclasses import dataclass

from engine.core.errors import EngineError, ExitCode


@dataclass(slots=True)
class Ended:
    """How a session ended."""

    exit_code: ExitCode = ExitCode.OK
    reason: str = ""  # why it stopped early, one sentence; "" when it did not
    rows_read: int = 0
    whole: bool = False  # every row of the input has its outcome committed
    in_doubt: int = 0  # rows that were leased and unfinished when it was cut short
    error: EngineError | None = None
    stale_refused: int = 0
    deaths: int = 0
