"""What a person sees while a run goes on: a live view on a terminal, plain lines elsewhere, or nothing.

Rules of this file:
1. Standard error only; standard output belongs to records and ``--json``.
2. Foreign text is sanitised here, on its way out.
"""

import sys
import time
from typing import Any, Protocol, TextIO

from engine.observe.sanitise import sanitise
from engine.observe.snapshot import EndpointView, Snapshot

LINE_EVERY_S = 5.0
MAY_COST_TWICE = "may be billed twice"  # in notes that concern money


class Progress(Protocol):
    """Where a run reports to."""

    def update(self, snapshot: Snapshot) -> None:
        """How things stand, about twice a second."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def said(self, line: str) -> None:
        """What a function of the job printed or logged, line by line, from a thread of its own."""

    def end(self) -> None:
        """The run is over."""


def duration(seconds: float | None) -> str:
    """``75`` is ``1:15``, ``3675`` is ``1:01:15``; ``–`` where it is not known."""
    if seconds is None:
        return "–"
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def one_line(snapshot: Snapshot) -> str:
    """The figures of a plain line."""
    total = f"/{snapshot.rows_total:,}" if snapshot.rows_total is not None else ""
    used = [
        f"{name} {share:.0%}"
        for name, share in (("rpm", snapshot.rpm_used), ("tpm", snapshot.tpm_used))
        if share is not None
    ]
    parts = [
        f"{snapshot.rows_done:,}{total} rows",
        f"{snapshot.rows_per_s:,.0f}/s",
        *used,
        f"{snapshot.in_flight:,} in flight",
        f"{snapshot.failed:,} failed",
        f"{snapshot.retries:,} retries",
        f"{snapshot.throttled:,} throttled",
        f"p50 {snapshot.latency_ms_p50:,.0f} ms",
        f"p99 {snapshot.latency_ms_p99:,.0f} ms",
        f"eta {duration(snapshot.eta_s)}",
    ]
    if snapshot.paused_s > 0:
        parts.append(f"paused {snapshot.paused_s:.0f} s")
    if snapshot.starved_s > 1:
        parts.append("waiting for the limiter")
    parts += [f"{sanitise(one.name)}: {endpoint_line(one, ' ')}" for one in snapshot.endpoints]
    return ", ".join(parts)


def endpoint_line(view: EndpointView, gap: str = "   ") -> str:
    """One endpoint's figures."""
    parts = [f"{view.requests_per_s:,.0f}/s"]
    if view.rpm_used is not None:
        parts.append(f"rpm {view.rpm_used:.0%}")
    if view.tpm_used is not None:
        parts.append(f"tpm {view.tpm_used:.0%}")
    parts.append(f"{view.in_flight:,} in flight")
    if view.throttled:
        parts.append(f"{view.throttled:,} throttled")
    if view.trouble:
        parts.append(f"left alone: {sanitise(view.trouble)}")
    return gap.join(parts)


class Silent:
    """Shows no progress; ``quiet`` keeps notes back as well."""

    def __init__(self, *, quiet: bool = True) -> None:
        self._quiet = quiet

    def update(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def note(self, sentence: str) -> None:
        """The note, unless quiet."""
        if not self._quiet:
            print(f"engine: {sanitise(sentence)}", file=sys.stderr)

    def said(self, line: str) -> None:
        """The line, unless quiet."""
        if not self._quiet:
            print(sanitise(line), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing."""


class PlainLines:
    """One line every few seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._next = time.monotonic() + LINE_EVERY_S

    def update(self, snapshot: Snapshot) -> None:
        """A line, when it is time for one."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_EVERY_S
            print(one_line(snapshot), file=self._stream, flush=True)

    def note(self, sentence: str) -> None:
        """The note on a line of its own."""
        print(f"engine: {sanitise(sentence)}", file=self._stream, flush=True)

    def said(self, line: str) -> None:
        """The line as it is."""
        print(sanitise(line), file=self._stream, flush=True)

    def end(self) -> None:
        """Nothing is left to clear."""


def figures(snapshot: Snapshot) -> Any:
    """How things stand, as a table of rich's."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    total = f" of {snapshot.rows_total:,}" if snapshot.rows_total is not None else ""
    table.add_row("rows", f"{snapshot.rows_done:,}{total}   {snapshot.failed:,} failed")
    table.add_row("rate", f"{snapshot.rows_per_s:,.0f} rows/s   eta {duration(snapshot.eta_s)}")
    used = "   ".join(
        f"{name} {share:.0%}"
        for name, share in (("rpm", snapshot.rpm_used), ("tpm", snapshot.tpm_used))
        if share is not None
    )
    if used:
        table.add_row(
            "quota", used + (f"   paused {snapshot.paused_s:.0f} s" if snapshot.paused_s > 0 else "")
        )
    table.add_row(
        "calls",
        f"{snapshot.in_flight:,} in flight   {snapshot.waiting:,} waiting   {snapshot.sleeping:,} to retry",
    )
    table.add_row("trouble", f"{snapshot.retries:,} retries   {snapshot.throttled:,} throttled")
    table.add_row("latency", f"p50 {snapshot.latency_ms_p50:,.0f} ms   p99 {snapshot.latency_ms_p99:,.0f} ms")
    cpu = sum(worker.cpu_percent for worker in snapshot.workers)
    memory = sum(worker.rss_bytes for worker in snapshot.workers) / 1e6
    table.add_row("workers", f"{len(snapshot.workers)}   cpu {cpu:.0f} %   memory {memory:,.0f} MB")
    for view in snapshot.endpoints:
        table.add_row(Text(sanitise(view.name)), Text(endpoint_line(view)))
    return table


class LiveView:
    """A table that is redrawn in place (rich)."""

    def __init__(self) -> None:
        # Imported here: it costs a tenth of a second, which only a terminal's user should pay.
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        # What is printed meanwhile goes above the table, but only what is meant for the terminal.
        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._live = Live(
            console=self._console, refresh_per_second=4, transient=True, redirect_stdout=on_terminal
        )
        self._live.start()

    def update(self, snapshot: Snapshot) -> None:
        """Redraw."""
        self._live.update(figures(snapshot))

    def note(self, sentence: str) -> None:
        """The note, above the table."""
        self._console.print(f"engine: {sanitise(sentence)}", markup=False, highlight=False)

    def said(self, line: str) -> None:
        """The line, above the table."""
        self._console.print(sanitise(line), markup=False, highlight=False)

    def end(self) -> None:
        """Clear the table."""
        self._live.stop()


def choose_progress(*, quiet: bool, no_progress: bool) -> Progress:
    """The way of showing that fits: nothing, plain lines, or a live view on a terminal."""
    if quiet:
        return Silent()
    if no_progress:
        return Silent(quiet=False)
    return LiveView() if sys.stderr.isatty() else PlainLines()
