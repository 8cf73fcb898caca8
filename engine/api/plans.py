"""Steps and settings of a pool as the flags of a job, and rows as what a run can read.

Rules of this file:
1. A pool of one question or request is the same job as the command line's, so that it runs as fast.
2. What nobody knows is refused here, by the name the caller used.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

from engine.api.steps import Step
from engine.core.errors import UsageError
from engine.settings import Loaded, load
from engine.settingtable import SETTINGS

# What a pool decides itself: rows come from the program, results go back to it.
_OWN = (
    "input",
    "output",
    "input_format",
    "output_format",
    "retry_failed",
    "meta",
    "in_flight",
    "rows",
    "escape_cells",
)
_ASKED_AS_ONE = frozenset(
    ("take", "when", "keep", "name")
)  # settings that only a job with a list of steps has


def job_of(steps: tuple[Step, ...], settings: Mapping[str, Any]) -> Loaded:
    """The job of a pool and the secrets beside it. ``settings`` by their flags' names. Raises UsageError."""
    flags = {**_checked(settings), "input": "-", "output": "-", "input_format": "jsonl", "meta": True}
    if is_single(steps):
        flags |= steps[0].settings
    else:
        flags["steps"] = [{"kind": step.kind, **step.settings} for step in steps]
    return load(flags)


def is_single(steps: tuple[Step, ...]) -> bool:
    """Whether this is a job of one question or request, which needs no list of steps."""
    return len(steps) == 1 and steps[0].kind != "call" and not _ASKED_AS_ONE & steps[0].settings.keys()


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = [name for name in SETTINGS if name not in _OWN and name != "steps"]
    for name in settings:
        if name in known or name == "in_flight":
            continue
        near = difflib.get_close_matches(name, [*known, "max_flows"], n=1)
        hint = f"Did you mean {near[0]}?" if near else f"It knows: {', '.join(known)}."
        raise UsageError(f"A Pool has no setting {name!r}. {hint} Nothing was sent.")
    return dict(settings)


class RowsGiven(NamedTuple):
    """The rows of a pool."""

    rows: Iterable[object]
    again: Callable[[], Iterable[object]] | None  # None: they can be read once
    total: int | None

    @property
    def can_be_read_again(self) -> bool:
        """Whether a second look at them shows the same rows."""
        return self.again is not None

    def numbered(self, wanted: set[int]) -> Iterator[tuple[int, object]]:
        """Those of these numbers, in order. Bounds: only where they can be read again."""
        if isinstance(self.rows, Sequence):
            yield from ((number, self.rows[number]) for number in sorted(wanted))
            return
        last = max(wanted, default=-1)
        for number, row in enumerate(self.rows):
            if number in wanted:
                yield number, row
            if number >= last:
                return


def rows_given(rows: object) -> RowsGiven:
    """What was given as rows: any iterable but a text or a single row. Raises UsageError."""
    if isinstance(rows, str | bytes):
        raise UsageError(
            "The rows are a text. Give a list of texts, or open the file: engine.Pool(steps, open(path))."
        )
    if isinstance(rows, Mapping):
        raise UsageError("The rows are one mapping. Give a list of them, one for each row.")
    kind = type(rows).__module__.partition(".")[0]
    if kind in ("pandas", "polars", "pyarrow") and hasattr(rows, "columns"):
        raise UsageError(f"The rows are a frame of {kind}. Use engine.enrich(frame, ...) to get one back.")
    if not isinstance(rows, Iterable):
        raise UsageError(f"The rows are no iterable but {type(rows).__name__}. Give a list or a generator.")
    total = len(rows) if isinstance(rows, Sized) else None
    once = isinstance(rows, Iterator)
    return RowsGiven(rows, None if once else lambda: rows, total)
