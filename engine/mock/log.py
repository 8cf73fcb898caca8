"""What really arrived and what really went out: the witness that tests and benchmarks believe.

Rules of this file:
1. Recording is a few appends; every figure is worked out when somebody asks, and goes on from where the
   last question stopped, so that asking during a run costs only what came since.
2. A window of W seconds is half-open, (t - W, t]: two arrivals exactly W apart are not in one window.
3. Times are seconds of ``time.monotonic``, which on Linux all processes of a machine share.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import msgspec

RECORDS_MAX = 2_000_000


@dataclass(slots=True)
class Record:
    """One request, as ``GET /log`` tells it."""

    number: int  # of arrival, from 1
    at_s: float
    connection: int
    method: str
    path: str
    row: str
    key: str  # the Idempotency-Key header, or empty
    tokens: int  # charged on arrival
    status: int = 0  # 0: nothing was answered
    full: bool = False  # a whole reply of status 200 was written
    done_s: float = 0.0
    fault: str = ""


class _SlidingMax:
    """The largest sum of amounts in any window, over arrays that only grow."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._left = self._right = 0
        self._sum = self.best = 0

    def advance(self, times: Sequence[float], amounts: Sequence[int] | None) -> int:
        left, total, best = self._left, self._sum, self.best
        for right in range(self._right, len(times)):
            edge = times[right] - self._window_s
            total += 1 if amounts is None else amounts[right]
            while times[left] <= edge:
                total -= 1 if amounts is None else amounts[left]
                left += 1
            if total > best:
                best = total
        self._left, self._sum, self.best, self._right = left, total, best, len(times)
        return best


class TruthLog:
    """Everything the server saw since its start or the last reset."""

    def __init__(self, *, keep_records: bool = False) -> None:
        self.arrivals = array("d")
        self.charge_times = array("d")
        self.charges = array("q")
        self.requests = 0
        self.tokens_charged = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self.in_flight = 0
        self.in_flight_max = 0
        self.connections = 0
        self.abandoned = 0  # the client went away before its reply was whole
        self.by_path: dict[str, int] = {}
        self.by_status: dict[int, int] = {}
        self.faults: dict[str, int] = {}
        self.last_fault = ""  # played on the request that arrived last
        self.rows: dict[int, int] = {}  # row -> whole replies of status 200
        self.attempts: dict[int, int] = {}  # row -> requests, counted while there are faults
        self.rows_repeated = 0
        self.replies_repeated = 0
        self.records: list[Record] | None = [] if keep_records else None
        self.records_dropped = 0
        self._request_windows: dict[float, _SlidingMax] = {}
        self._token_windows: dict[float, _SlidingMax] = {}
        self._seconds: Counter[int] = Counter()

    def arrived(self, now: float, path: str, row: int | None, tokens: int) -> int:
        """Record a request; returns its number. ``row`` is None where requests have no identity."""
        self.arrivals.append(now)
        self.by_path[path] = self.by_path.get(path, 0) + 1
        if row is not None:
            self.rows.setdefault(row, 0)
        if tokens:
            self.charged(now, tokens)
        self.last_fault = ""
        self.in_flight += 1
        if self.in_flight > self.in_flight_max:
            self.in_flight_max = self.in_flight
        self.requests += 1
        return self.requests

    def charged(self, now: float, tokens: int) -> None:
        """Record tokens that count against a quota from now on."""
        self.charge_times.append(now)
        self.charges.append(tokens)
        self.tokens_charged += tokens

    def answered(self, row: int | None, status: int, *, full: bool) -> None:
        """Record that the last byte of a reply was written; ``full`` is a whole reply of status 200."""
        self.in_flight -= 1
        self.by_status[status] = self.by_status.get(status, 0) + 1
        if full and row is not None:
            replies = self.rows.get(row, 0) + 1
            self.rows[row] = replies
            if replies > 1:
                self.replies_repeated += 1
                if replies == 2:
                    self.rows_repeated += 1

    def gave_up(self, count: int) -> None:
        """Record that a connection ended with ``count`` requests unanswered."""
        self.in_flight -= count
        self.abandoned += count

    def struck(self, fault: str) -> None:
        """Record that a fault was played."""
        self.last_fault = fault
        self.faults[fault] = self.faults.get(fault, 0) + 1

    def keep(self, record: Record) -> None:
        """Remember one request whole; beyond ``RECORDS_MAX`` they are only counted."""
        assert self.records is not None
        if len(self.records) < RECORDS_MAX:
            self.records.append(record)
        else:
            self.records_dropped += 1

    def max_requests(self, window_s: float) -> int:
        """Most arrivals in any window of ``window_s`` seconds."""
        window = self._request_windows.setdefault(window_s, _SlidingMax(window_s))
        return window.advance(self.arrivals, None)

    def max_tokens(self, window_s: float) -> int:
        """Most charged tokens in any window of ``window_s`` seconds."""
        window = self._token_windows.setdefault(window_s, _SlidingMax(window_s))
        return window.advance(self.charge_times, self.charges)

    def per_clock_second(self) -> Counter[int]:
        """Arrivals in each whole second of the clock."""
        counted = self._seconds.total()
        self._seconds.update(map(math.floor, self.arrivals[counted:]))
        return self._seconds

    def snapshot(self, windows_s: Sequence[float] = ()) -> dict[str, object]:
        """All figures as one JSON-able object; ``windows_s`` adds windows to the usual 1 s and 60 s."""
        seconds = self.per_clock_second()
        statuses = self.by_status
        return {
            "requests": self.requests,
            "ok": statuses.get(200, 0),
            "throttled": statuses.get(429, 0),
            "by_path": dict(self.by_path),
            "by_status": {str(status): count for status, count in sorted(statuses.items())},
            "faults": dict(self.faults),
            "max_in_1s": self.max_requests(1.0),
            "max_in_60s": self.max_requests(60.0),
            "max_in_clock_second": max(seconds.values(), default=0),
            "max_tokens_in_1s": self.max_tokens(1.0),
            "max_tokens_in_60s": self.max_tokens(60.0),
            "windows": {
                f"{window_s:g}": {
                    "requests": self.max_requests(window_s),
                    "tokens": self.max_tokens(window_s),
                }
                for window_s in windows_s
            },
            "tokens_charged": self.tokens_charged,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "abandoned": self.abandoned,
            "rows": len(self.rows),
            "rows_repeated": self.rows_repeated,
            "replies_repeated": self.replies_repeated,
            "connections": self.connections,
            "first_s": self.arrivals[0] if self.arrivals else None,
            "last_s": self.arrivals[-1] if self.arrivals else None,
            "records_dropped": self.records_dropped,
        }

    def json_lines(self, batch: int = 1000) -> Iterator[bytes]:
        """The kept records, one JSON object a line, in pieces of ``batch`` lines."""
        records = self.records or []
        for start in range(0, len(records), batch):
            lines = [msgspec.json.encode(asdict(record)) for record in records[start : start + batch]]
            yield b"\n".join(lines) + b"\n"
