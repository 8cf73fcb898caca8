"""Steps and settings of a pool as the flags of a job, and rows as what a run can read.

Rules of this file:
1. A pool of one question or request is the same job as the command line's, so that it runs as fast.
2. What nobody knows is refused here, by the name the caller used.
"""

import difflib
import io
import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypedDict, get_type_hints

from engine.api.steps import Step, refuse_no_texts
from engine.api.wording import in_python
from engine.config import GATE
from engine.coordinator.plan import check_steps
from engine.core.errors import UsageError
from engine.settings import Loaded, load

GATE_ASKED_MAX = 128  # calls under way before the first answer, where so many were asked for at once


class PoolSettings(TypedDict, total=False):
    """The settings of ``engine run`` that a pool takes too, by their flags' names, for all of its steps."""

    provider: str
    base_url: str
    endpoint: str
    api_version: str
    api_key_env: str
    endpoints: Sequence[
        Mapping[str, Any]
    ]  # several places that rows may go to, as a job file's [[endpoints]]
    model: str
    system: str
    max_tokens: int
    temperature: float
    param: Mapping[str, Any]  # further fields of the request's body
    input_tpm: int | Literal["auto"]
    output_tpm: int | Literal["auto"]
    share: float  # the weight among runs that share a quota on this machine
    limiter_dir: str
    count_tokens: bool
    timeout: float  # seconds a request may take
    retries: int
    max_failures: int | str  # stop when more rows fail: a number, or a share like "5%"
    fresh: bool  # start over: what the state folder has is moved aside
    on_change: Literal[
        "refuse", "redo"
    ]  # the state is of other steps: "redo" runs those and what needs them again
    durability: Literal["fsync", "os"]
    ca_file: str
    trust_env: bool
    wire: str


class RunSettings(PoolSettings, total=False):
    """All settings of a Pool, for who makes one; see there."""

    max_flows: int | Literal["auto"] | None
    procs: int | None
    rpm: int | Literal["auto"] | None
    tpm: int | Literal["auto"] | None
    state: str | os.PathLike[str] | None
    on_error: Literal["keep", "raise"]
    progress: bool | None
    read_ahead: int | None


_TEXTS = tuple(name for name, kind in get_type_hints(PoolSettings).items() if kind is str)
_ASKED_AS_ONE = frozenset(
    ("take", "when", "keep", "name")
)  # settings that only a job with a list of steps has


def job_of(steps: tuple[Step, ...], settings: Mapping[str, Any]) -> Loaded:
    """The job of a pool and the secrets beside it. ``settings`` by their flags' names. Raises UsageError."""
    flags = {**settings, "input": "-", "output": "-", "input_format": "jsonl", "meta": True}
    if is_single(steps):
        flags |= steps[0].settings
    else:
        flags["steps"] = [{"kind": step.kind, **step.settings} for step in steps]
    if flags.get("state") is None:
        flags.setdefault("durability", "os")  # nothing of it is to outlive this process
    try:
        loaded = load(flags)
        check_steps(loaded.job)
    except UsageError as error:
        raise in_python(error) from None
    asked = flags.get("in_flight")
    if isinstance(asked, int):  # said by a program: its answers are not to be waited for in small groups
        gate = max(GATE, min(asked, GATE_ASKED_MAX))
        loaded = replace(loaded, job=replace(loaded.job, gate=gate))
    return loaded


def is_single(steps: tuple[Step, ...]) -> bool:
    """Whether this is a job of one question or request, which needs no list of steps."""
    return len(steps) == 1 and steps[0].kind != "call" and not _ASKED_AS_ONE & steps[0].settings.keys()


def refuse_unknown(settings: Mapping[str, Any]) -> None:
    """Raise UsageError for a setting that no pool has, and for what is no text where one is needed."""
    refuse_no_texts("A Pool", settings, _TEXTS)
    for name in settings:
        if name not in PoolSettings.__annotations__:
            known = list(RunSettings.__annotations__)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It knows: {', '.join(known)}."
            raise UsageError(
                f"A Pool has no setting {name!r}. {hint} What concerns one step is said with it. Nothing was sent."
            )


class RowsGiven(NamedTuple):
    """The rows of a pool."""

    rows: Iterable[object] | AsyncIterable[object]
    again: Callable[[], Iterable[object]] | None  # None: they can be read once

    @property
    def total(self) -> int | None:
        """How many there are now; None where they do not say."""
        return len(self.rows) if isinstance(self.rows, Sized) else None

    @property
    def can_be_read_again(self) -> bool:
        """Whether a second look at them shows the same rows."""
        return self.again is not None

    def numbered(self, wanted: set[int]) -> Iterator[tuple[int, object]]:
        """Those of these numbers, in order. Bounds: only where they can be read again.

        Raises UsageError, before the first where that can be, if there are not so many rows.
        """
        last = max(wanted, default=-1)
        if self.total is not None and self.total <= last:
            raise _shorter(self.total, last)
        return self._numbered(wanted, last)

    def _numbered(self, wanted: set[int], last: int) -> Iterator[tuple[int, object]]:
        rows = self.again() if self.again is not None else ()
        if isinstance(rows, Sequence):
            yield from ((number, rows[number]) for number in sorted(wanted))
            return
        read = 0
        for number, row in enumerate(rows):
            read += 1
            if number in wanted:
                yield number, row
            if number >= last:
                return
        if wanted:
            raise _shorter(read, last)


def _shorter(rows: int, last: int) -> UsageError:
    return UsageError(
        f"The rows have changed: there are {rows:,} now, but the row with the index {last:,} failed in an earlier run. Give "
        "the same rows to run it again. Nothing was sent, and what was done is kept."
    )


def rows_given(rows: object) -> RowsGiven:
    """What was given as rows: any iterable, asynchronous or not, but a text or a single row; a file's lines without
    their ends.

    Raises UsageError.
    """
    if isinstance(rows, str | bytes):
        raise UsageError(
            "The rows are a text. Give a list of texts, or open the file: engine.Pool(steps, open(path))."
        )
    refuse_several(rows)
    if isinstance(rows, Mapping):
        raise UsageError("The rows are one mapping. Give a list of them, one for each row.")
    kind = type(rows).__module__.partition(".")[0]
    if kind in ("pandas", "polars", "pyarrow") and hasattr(rows, "columns"):
        raise UsageError(f"The rows are a frame of {kind}. Use engine.enrich(frame, ...) to get one back.")
    if kind == "datasets" and (style := _format_of(rows)) in ("arrow", "pandas", "polars"):
        raise UsageError(
            f"Each row of this dataset comes as a table of {style}: that is its format. Give "
            "dataset.with_format(None). Nothing was sent."
        )
    if isinstance(rows, io.RawIOBase | io.BufferedIOBase):
        raise UsageError("The rows are a file that is open for bytes. Open it for text: open(path).")
    rows = lines_of(rows)
    if isinstance(rows, AsyncIterable) and not isinstance(rows, Iterable):
        return RowsGiven(rows, None)
    if not isinstance(rows, Iterable):
        raise UsageError(f"The rows are no iterable but {type(rows).__name__}. Give a list or a generator.")
    return RowsGiven(rows, None if isinstance(rows, Iterator) else lambda: rows)


def refuse_several(rows: object) -> None:
    """Raise UsageError for Hugging Face's dict of datasets."""
    if type(rows).__module__.partition(".")[0] == "datasets" and isinstance(rows, Mapping):
        names = ", ".join(map(str, rows))
        raise UsageError(
            f"{type(rows).__name__} holds several datasets ({names}). Give one of them, or one after the other in a loop "
            "over its items(). Nothing was sent."
        )


def _format_of(dataset: Any) -> str:
    """How a dataset of Hugging Face shows its rows; empty where they are dicts."""
    shown = getattr(dataset, "format", None)
    if isinstance(shown, Mapping):
        return str(shown.get("type") or "")
    own = getattr(dataset, "_formatting", None)  # of an IterableDataset
    return str(getattr(own, "format_type", None) or "")


def lines_of(rows: Any) -> Any:
    """The lines of an open text file, without their ends; any other rows as they are."""
    if not isinstance(rows, io.TextIOBase):
        return rows
    return (line.removesuffix("\n").removesuffix("\r") for line in rows)


def state_given(state: object) -> str | None:
    """The folder that a pool's state is kept in, from wherever it is looked for later. Raises UsageError."""
    if state is None:
        return None
    path = os.fspath(state) if isinstance(state, str | os.PathLike) else None
    if not isinstance(path, str) or not path:
        raise UsageError(
            f"state is {state!r}, which is no folder. Give its name, or leave state out: then nothing is kept."
        )
    return os.path.abspath(os.path.expanduser(path))
