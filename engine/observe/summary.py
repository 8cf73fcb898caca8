"""What a run came to, for people and as one JSON object.

Rules of this file:
1. Every figure is a measured one; what is not known is null, never 0.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from engine.observe.sanitise import sanitise


@dataclass(slots=True)
class Summary:
    """Rows count the whole input; requests, tokens, times and percentiles count this command alone."""

    rows: int = 0
    ok: int = 0
    failed: int = 0
    open: int = 0  # rows of the input, as far as it was read, that have no outcome yet
    resumed: int = 0
    in_doubt: int = 0
    requests: int = 0
    attempts: int = 0
    retries: int = 0
    throttled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    first_request_s: float | None = None  # from the command's start to the first request that ended
    rows_per_s: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    quota: dict[str, float | None] = field(default_factory=dict)
    estimate: dict[str, float] | None = (
        None  # error and bias of prompt estimates, as shares of the real tokens
    )
    endpoints: list[dict[str, Any]] = field(default_factory=list)  # each of them, where there are several
    failures: dict[str, int] = field(default_factory=dict)
    worker_deaths: int = 0
    extrapolation: dict[str, Any] | None = None  # with --rows: what the whole input would take
    output: str = ""
    state: str = ""
    exit_code: int = 0
    stopped: str = ""

    def json(self) -> str:
        """One line of JSON."""
        return msgspec.json.encode(asdict(self)).decode()

    def text(self) -> str:
        """A few lines of at most about 80 columns."""
        lines = [f"{self.rows:,} rows: {self.ok:,} ok, {self.failed:,} failed"]
        if self.open:
            lines[0] += f", {self.open:,} open"
        if self.resumed:
            lines[0] += f" ({self.resumed:,} were finished before)"
        for kind, count in sorted(self.failures.items(), key=lambda item: -item[1]):
            lines.append(f"  {count:,} × {sanitise(kind)}")
        lines.append(
            f"{self.seconds:.1f} s, {self.rows_per_s:,.1f} rows/s, {self.requests:,} requests, "
            f"{self.retries:,} retries, {self.throttled:,} throttled"
        )
        lines.append(f"tokens: {self.tokens_in:,} in, {self.tokens_out:,} out")
        if self.latency_ms:
            parts = ", ".join(f"{name} {value:,.0f}" for name, value in self.latency_ms.items())
            lines.append(f"latency ms: {parts}")
        used = [f"{name[:3].upper()} {share:.1%}" for name, share in self.quota.items() if share is not None]
        if used:
            lines.append("quota used: " + ", ".join(used))
        if self.estimate and used:
            lines.append(
                f"prompt estimates: off by {self.estimate['error']:.1%} each, {self.estimate['bias']:+.1%} in all"
            )
        for one in self.endpoints:
            lines.append(f"{sanitise(one['name'])}: {_endpoint(one)}")
        if self.in_doubt:
            lines.append(
                f"in doubt: {self.in_doubt:,} rows were under way at an interruption; some may be billed twice"
            )
        if self.extrapolation:
            lines.append(
                f"the whole input: about {self.extrapolation['rows']:,} rows, {self.extrapolation['seconds']:,.0f} s, "
                f"{self.extrapolation['tokens_in']:,} tokens in, {self.extrapolation['tokens_out']:,} out"
            )
        if self.stopped:
            lines.append(f"stopped: {sanitise(self.stopped)}")
        if self.output and not self.stopped:
            lines.append(f"output: {self.output}")
        if self.state:
            lines.append(f"state:  {self.state}")
        return "\n".join(lines)


def _endpoint(one: dict[str, Any]) -> str:
    parts = [f"{one['requests']:,} requests, {one['ok']:,} ok" if one["requests"] else f"{one['ok']:,} ok"]
    if one["throttled"]:
        parts.append(f"{one['throttled']:,} throttled")
    if one["cooldowns"]:
        parts.append(f"left alone {one['cooldowns']:,} times")
    used = [f"{name[:3].upper()} {share:.1%}" for name, share in one["quota"].items() if share is not None]
    if used:
        parts.append("quota used: " + " ".join(used))
    if one["latency_ms"]:
        parts.append(f"p50 {one['latency_ms']['p50']:,.0f} ms")
    return ", ".join(parts)
