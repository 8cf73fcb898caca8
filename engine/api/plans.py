"""Steps and settings of a pool as the flags of a job, and rows as what a run can read.

Rules of this file:
1. A pool of one question or request is the same job as the command line's, so that it runs as fast.
2. What nobody knows is refused here, by the name the caller used.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Literal, NamedTuple, TypedDict

from engine.api.steps import Step
from engine.api.wording import in_python
from engine.core.errors import UsageError
from engine.settings import Loaded, load


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
    try:
        return load(flags)
    except UsageError as error:
        raise in_python(error) from None


def is_single(steps: tuple[Step, ...]) -> bool:
    """Whether this is a job of one question or request, which needs no list of steps."""
    return len(steps) == 1 and steps[0].kind != "call" and not _ASKED_AS_ONE & steps[0].settings.keys()


def refuse_unknown(settings: Mapping[str, Any]) -> None:
    """Raise UsageError for a setting that no pool has."""
    for name in settings:
        if name not in PoolSettings.__annotations__:
            known = [
                *PoolSettings.__annotations__,
                "max_flows",
                "procs",
                "rpm",
                "tpm",
                "state",
                "on_error",
                "progress",
            ]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It knows: {', '.join(known)}."
            raise UsageError(
                f"A Pool has no setting {name!r}. {hint} What concerns one step is said with it. Nothing was sent."
            )


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
