"""What one run left behind, and what must be true of it: the server's log is the witness, never our own counters.

Rules of this file:
1. Every checker returns what is wrong, as sets or lists; an empty one is a pass. Nothing here decides how often.
2. Rows are known by their number in the input; prompts all differ (``runs.write_rows``), so that a reply that landed on
   another row shows.
"""

import json
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Protocol

import psutil
from runs import is_alive
from scorecard import Promise

from engine.core.errors import UsageError
from engine.mock.answers import expected_answer
from engine.store import Store


@dataclass
class History:
    """One job's input, server log, store and output, when all its runs are over."""

    prompts: list[str]
    log: list[dict[str, Any]]
    requests: int
    output: list[dict[str, Any]] | None  # None: it was not published
    kept: dict[int, bool] = field(
        default_factory=dict
    )  # rows with an outcome in the store: whether they are ok
    attempts: int = 0  # as recorded with those outcomes
    in_doubt: int = 0
    rows_of: dict[str, int] = field(default_factory=dict)  # the server's name of a row: its number

    # Checkers of more than rows, by the promise that they are of.
    more_kinds: ClassVar[Mapping[Promise, set[str]]] = {}

    def more_figures(self) -> dict[str, int]:
        """What else the scorecard is told of."""
        return {}

    # --- C1: accounting -----------------------------------------------------------------------------------

    def unaccounted(self) -> list[str]:
        """Rows in the input without exactly one record in the output, and records without a row."""
        if self.output is None:
            return ["there is no output"]
        numbers = Counter(record.get("id") for record in self.output)
        wrong = [
            f"row {row} has {numbers[row]} records" for row in range(len(self.prompts)) if numbers[row] != 1
        ]
        return wrong + [f"record for row {row!r}" for row in numbers if row not in range(len(self.prompts))]

    # --- C2: sets -----------------------------------------------------------------------------------------

    def lost(self, acknowledged: Iterable[int] = ()) -> set[int]:
        """Rows that were done once (seen in the store earlier: ``acknowledged``) and are not any more."""
        return set(acknowledged) - self.kept.keys()

    def unexpected(self) -> set[int]:
        """Rows that are ok and that the server never answered whole."""
        answered = {self.rows_of.get(one["row"], -1) for one in self.log if one["full"]}
        return {row for row, ok in self.kept.items() if ok} - answered

    def duplicated(self) -> set[int]:
        """Rows with several records in the output."""
        counts = Counter(record.get("id") for record in self.output or [])
        return {row for row, count in counts.items() if count > 1}

    def recovered(self) -> set[int]:
        """Rows that are done although the fate of one of their calls is not known to us. Not an error."""
        unanswered = {self.rows_of.get(one["row"], -1) for one in self.log if not one["status"]}
        return {row for row, ok in self.kept.items() if ok} & unanswered

    # --- C3: what was paid twice --------------------------------------------------------------------------

    def repeated(self) -> int:
        """Whole replies beyond the first of each row."""
        full = Counter(one["row"] for one in self.log if one["full"])
        return sum(full.values()) - len(full)

    # --- C4: limits ---------------------------------------------------------------------------------------

    def windows_over(self, limit: int, seconds: float = 60.0) -> list[float]:
        """Starts of sliding windows in which more than ``limit`` requests came."""
        times = [one["at_s"] for one in self.log]
        return [start for at, start in enumerate(times) if bisect_left(times, start + seconds) - at > limit]

    # --- C5, C6: order and bodies -------------------------------------------------------------------------

    def out_of_order(self) -> list[int]:
        """Places of the output that hold another row than the input has there."""
        return [at for at, record in enumerate(self.output or []) if record.get("id") != at]

    def wrong_bodies(self, column: str = "response") -> set[int]:
        """Rows that are ok with an answer that is not the one to their own prompt."""
        return {
            record["id"]
            for record in self.output or []
            if record["_status"] == "ok" and record[column] != expected_answer(self.prompts[record["id"]])
        }

    # --- C11: attempts ------------------------------------------------------------------------------------

    def unrecorded_attempts(self) -> int:
        """Requests that the server saw and no outcome counts, beyond those of rows that were under way at a death."""
        return max(0, self.requests - self.attempts - self.in_doubt)

    def attempts_beyond_requests(self) -> int:
        """Attempts that outcomes count and the server never saw."""
        return max(0, self.attempts - self.requests)

    # --- C12: what failed though nothing failed it -----------------------------------------------------------

    def failed(self) -> list[str]:
        """Rows that failed, but for those that were alone with three workers when they died."""
        return [
            f"row {record['id']}: {record['_error']}"
            for record in self.output or []
            if record["_status"] != "ok" and not record["_error"].startswith("poison")
        ]

    # --- all of them --------------------------------------------------------------------------------------

    def faults(self, *, acknowledged: Iterable[int] = ()) -> dict[str, Any]:
        """Everything that is wrong in a run whose only faults were deaths, by the checker's name; {} is a pass."""
        found: dict[str, Any] = {
            "unaccounted": self.unaccounted(),
            "lost": self.lost(acknowledged),
            "unexpected": self.unexpected(),
            "duplicated": self.duplicated(),
            "out_of_order": self.out_of_order(),
            "wrong_bodies": self.wrong_bodies(),
            "repeated_beyond_doubt": max(0, self.repeated() - self.in_doubt),
            "unrecorded_attempts": self.unrecorded_attempts(),
            "failed": self.failed(),
        }
        return {name: value for name, value in found.items() if value}


class Witness(Protocol):
    """A server that remembers what really arrived: the mock provider, or one of the tests' own."""

    def stats(self) -> dict[str, Any]:
        """How many ``requests`` came, among other figures."""

    def log(self) -> list[dict[str, Any]]:
        """Every request."""


def history_of(mock: Witness, prompts: Sequence[str], output: Path) -> History:
    """The history of a job that wrote to ``output``. The mock must have ``log`` and ``row_key="prompt"``."""
    folder = Path(f"{output}.run")
    rows = read_output(output) if output.exists() else None
    stats = mock.stats()
    with Store.view(folder) as store:
        counts = store.counts()
        return History(
            prompts=list(prompts),
            log=mock.log(),
            requests=stats["requests"],
            output=rows,
            kept={row: ok for row, _, ok in store.finished()},
            attempts=counts.attempts,
            in_doubt=store.in_doubt_total(),
            rows_of={row_name(prompt): row for row, prompt in enumerate(prompts)},
        )


def read_output(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL output."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def row_name(prompt: str) -> str:
    """What the mock calls the row of a prompt, with ``row_key="prompt"``."""
    return f"{int.from_bytes(blake2b(prompt.encode(), digest_size=8).digest(), 'big'):016x}"


def acknowledged_rows(output: Path) -> set[int]:
    """Rows with an outcome in the store of a run, whether it runs or not."""
    store = store_of(output)
    if store is None:
        return set()
    with store:
        return {row for row, _, _ in store.finished()}


def store_of(output: Path) -> Store | None:
    """The store of a run, to be read, whether it runs or not; None where it has not begun to keep anything."""
    try:
        return Store.view(Path(f"{output}.run"))
    except UsageError:
        return None


# --- C9: leaks ------------------------------------------------------------------------------------------------


def processes_of(limiters: Path) -> list[psutil.Process]:
    """The living processes of ours, but for mock providers, that have this folder of limiters."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("ENGINE_LIMITER_DIR") == str(limiters)
            if ours and "engine.mock" not in process.cmdline() and is_alive(process.pid):
                found.append(process)
        except psutil.Error:
            continue  # it is gone, or nobody's we know
    return found


_STATE_FILES = {"engine.log", "lock", "store.db"}


def leftovers(output: Path, limiters: Path, pids: Iterable[int]) -> list[str]:
    """What runs of this job, of these process ids, left behind: processes, sockets, folders, half files. [] is a pass."""
    found = [f"process {process}" for process in processes_of(limiters)]
    temporary = Path(tempfile.gettempdir())
    found += [str(path) for pid in pids for path in temporary.glob(f"engine-{pid}-*")]
    found += [str(path) for path in limiters.rglob("*") if path.is_socket() or path.name == "info.json"]
    expected = {output.name, f"{output.name}.run"}
    found += [str(path) for path in output.parent.glob(f"*{output.name}*") if path.name not in expected]
    return found + [str(path) for path in Path(f"{output}.run").iterdir() if path.name not in _STATE_FILES]
