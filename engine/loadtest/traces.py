"""Recordings of when requests came in, to be sent again at the same moments.

Rules of this file:
1. What is read is text, by content and not by ending: JSON lines, CSV with a heading, or one number per line.
2. A file that has no moments is refused, and so is the first line that cannot be read: a replay with holes is none.
3. At most ``schedules.trace.OFFSETS_MAX`` moments are held, eight bytes each until they are in order.

Moments are seconds from any start, or dates of ISO 8601 (without a zone: UTC). Numbers of 10**11 and more cannot be
seconds (that is the year 5138) and are taken as milli-, micro- or nanoseconds; a name that ends in ``_ms`` says so too.
A run of the engine's own is given by its state folder: of each row the moment at which its last attempt was sent.
"""

import csv
import json
import math
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from engine.core.errors import UsageError
from engine.formats.lines import blocks
from engine.schedules.trace import OFFSETS_MAX, from_stamps
from engine.store import Store

LINE_BYTES_MAX = 16 * 2**20  # rows may carry their prompts
# In this order; upper and lower case are the same. ``TIMESTAMP`` is that of the Azure LLM inference traces.
NAMES = (
    "timestamp", "time", "start", "start_time", "started_at", "arrival", "arrival_time", "arrived_at",
    "request_time", "offset", "ts", "t",
)  # fmt: skip
UNITS = {"": 1.0, "_s": 1.0, "_ms": 1e3, "_us": 1e6, "_ns": 1e9}
# From here on a number is in that unit: its smallest power of ten that is no sensible time in the one before.
_EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))


def read_trace(path: str) -> tuple[float, ...]:
    """The moments in a file as offsets: seconds from the earliest, ascending.

    Raises UsageError for a file that cannot be read, has none, has too many, or has one that is no moment.
    """
    stamps = array("d")
    try:
        if Path(path).is_dir():
            return _of_run(Path(path))
        with Path(path).open("rb") as file:
            for stamp in _stamps(_lines(file, path), path):
                stamps.append(stamp)
                if len(stamps) > OFFSETS_MAX:
                    raise UsageError(f"--trace {path!r} has more than {OFFSETS_MAX:,} requests.")
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--trace {path!r} cannot be read: {why}.") from None
    if not stamps:
        raise UsageError(f"--trace {path!r} has no requests.")
    return from_stamps(stamps)


def _of_run(folder: Path) -> tuple[float, ...]:
    """When a run's rows were sent. Of runs on both sides of a restart of the machine the two parts overlap."""
    with Store.view(folder) as store:
        if store.counts().rows > OFFSETS_MAX:
            raise UsageError(f"The run in {folder} has more than {OFFSETS_MAX:,} requests.")
        stamps = array("d", store.sent_moments())
    if not stamps:
        raise UsageError(
            f"The run in {folder} has kept no moment of a call: nothing was sent, or it is too old."
        )
    return from_stamps(stamps)


def _lines(file: BinaryIO, path: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are not empty."""
    for block in blocks(file, line_bytes_max=LINE_BYTES_MAX):
        if block.bad:
            raise UsageError(f"--trace {path!r}: {block.bad}.")
        for number, line in enumerate(block.lines, block.number):
            try:
                text = line.decode().strip()
            except UnicodeDecodeError:
                raise UsageError(f"--trace {path!r}: line {number} is no UTF-8 text.") from None
            if text:
                yield number, text


def _stamps(lines: Iterator[tuple[int, str]], path: str) -> Iterator[float]:
    """The moments, by what the first line looks like."""
    first = next(lines, None)
    if first is None:
        return
    everything = chain([first], lines)
    if first[1].startswith("{"):
        yield from _of_json(everything, path)
    elif _moment(first[1], 1.0) is not None:  # a date may have a comma in its seconds
        yield from _of_numbers(everything, path)
    else:
        yield from _of_csv(everything, path)


def _of_numbers(lines: Iterator[tuple[int, str]], path: str) -> Iterator[float]:
    for number, text in lines:
        yield _known(_moment(text, 1.0), number, text, path)


def _of_json(lines: Iterator[tuple[int, str]], path: str) -> Iterator[float]:
    column: tuple[str, float] | None = None
    for number, text in lines:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"--trace {path!r}: line {number} is no JSON object.")
        if column is None:
            column = _column(list(row), path)
        name, unit = column
        yield _known(_moment(row.get(name), unit), number, row.get(name), path)


def _of_csv(lines: Iterator[tuple[int, str]], path: str) -> Iterator[float]:
    """Rows with a heading. A quoted field may go over several lines; the number told is the row's last one."""
    at = 0

    def texts() -> Iterator[str]:
        nonlocal at
        for number, text in lines:
            at = number
            yield text + "\n"

    try:
        rows = csv.reader(texts(), strict=True)
        heading = next(rows)
        name, unit = _column(heading, path)
        place = heading.index(name)
        for row in rows:
            value = row[place] if place < len(row) else None
            yield _known(_moment(value, unit), at, value, path)
    except csv.Error as error:
        raise UsageError(f"--trace {path!r}: line {at} is no CSV ({error}).") from None


def _column(names: list[str], path: str) -> tuple[str, float]:
    """Which column has the moments, and how many of its unit are a second."""
    by_name = {name.strip().lower(): name for name in reversed(names)}
    for known in NAMES:
        for ending, unit in UNITS.items():
            if known + ending in by_name:
                return by_name[known + ending], unit
    shown = ", ".join(repr(name[:40]) for name in names[:8]) or "none"
    raise UsageError(
        f"--trace {path!r} has no column that says when. Known: {', '.join(NAMES)}, in seconds or as dates, or with "
        f"_ms, _us or _ns at their ends. It has {shown}."
    )


def _moment(value: object, unit: float) -> float | None:
    """Seconds of a number or a date; None for what is neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _date(value) if isinstance(value, str) else None
    if not math.isfinite(number):
        return None
    if unit == 1.0:
        unit = next((per_s for least, per_s in _EPOCHS if abs(number) >= least), unit)
    return number / unit


def _date(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _known(moment: float | None, number: int, value: object, path: str) -> float:
    if moment is None:
        shown = "nothing" if value is None else repr(value)[:60]
        raise UsageError(f"--trace {path!r}: line {number} says {shown}, which is no number and no date.")
    return moment
