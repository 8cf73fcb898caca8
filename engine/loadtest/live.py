"""What a person sees while a load test goes on: a live view on a terminal, plain lines elsewhere, or nothing.

Rules of this file:
1. Standard error only; standard output belongs to the report and ``--json``.
2. Figures of now are those of the last whole second: the one that runs is not complete.
"""

import sys
import time
from dataclasses import dataclass
from typing import Protocol, TextIO

from engine.core.measuring import Measures, Second
from engine.loadtest.model import LoadPlan
from engine.observe.progress import LINE_EVERY_S, duration
from engine.observe.sanitise import sanitise

BAR_CELLS = 24


@dataclass(slots=True)
class Moment:
    """How a test stands. ``measures`` go on growing."""

    plan: LoadPlan
    since_s: float  # the schedule's start
    in_flight: int
    measures: Measures

    @property
    def second(self) -> Second:
        """The last whole second that all workers have told of."""
        return self.measures.seconds.get(int(self.since_s) - 2, Second())


class LoadView(Protocol):
    """Where a load test reports to while it runs."""

    def update(self, moment: Moment) -> None:
        """How it stands, a few times a second."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def end(self) -> None:
        """It is over."""


def figures(moment: Moment) -> dict[str, str]:
    """Label -> figures, in the order they are shown."""
    measures, second = moment.measures, moment.second
    counts = measures.counts
    planned_s = moment.plan.duration_s
    shown = {
        "time": duration(moment.since_s) + (f" of {duration(planned_s)}" if planned_s else ""),
        "rate": f"{second.intended:,}/s asked, {second.sent:,}/s sent, {second.completed:,}/s completed",
        "in flight": f"{moment.in_flight:,}",
        "requests": f"{counts.completed:,} completed, {counts.failed:,} failed, {counts.dropped:,} dropped, {counts.late:,} late",
    }
    if moment.plan.schedule is None:
        shown["rate"] = f"{second.completed:,}/s completed"
    names = {"latency": "latency", "response_time": "response time"}
    if moment.plan.is_streamed:
        names = {"latency": "latency", "ttft": "first token", "tpot": "per token"}
    for name, label in names.items():
        p50, p99 = measures.histograms[name].quantiles_us((0.5, 0.99))
        if p50 is not None and p99 is not None:
            shown[label] = f"p50 {p50 / 1000:,.1f} ms, p99 {p99 / 1000:,.1f} ms"
    if measures.errors:
        worst = sorted(measures.errors.items(), key=lambda item: -item[1])[:4]
        shown["errors"] = ", ".join(f"{kind} {many:,}" for kind, many in worst)
    return shown


class SilentView:
    """Shows nothing but notes; ``quiet`` keeps those back as well."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def update(self, moment: Moment) -> None:
        """Nothing."""

    def note(self, sentence: str) -> None:
        """The note, unless quiet."""
        if not self._quiet:
            print(f"engine: {sanitise(sentence)}", file=sys.stderr)

    def end(self) -> None:
        """Nothing."""


class PlainView:
    """One line every few seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._next = time.monotonic() + LINE_EVERY_S

    def update(self, moment: Moment) -> None:
        """A line, when it is time for one."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_EVERY_S
            line = "; ".join(f"{label} {value}" for label, value in figures(moment).items())
            print(sanitise(line), file=self._stream, flush=True)

    def note(self, sentence: str) -> None:
        """The note on a line of its own."""
        print(f"engine: {sanitise(sentence)}", file=self._stream, flush=True)

    def end(self) -> None:
        """Nothing is left to clear."""


class TerminalView:
    """A table that is redrawn in place (rich), with a bar where the end is known."""

    def __init__(self) -> None:
        # Imported here: it costs a tenth of a second, which only a terminal's user should pay.
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def update(self, moment: Moment) -> None:
        """Redraw."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for label, value in figures(moment).items():
            table.add_row(Text(label, style="dim"), Text(sanitise(value)))
        planned_s = moment.plan.duration_s
        if planned_s:
            full = min(BAR_CELLS, round(moment.since_s / planned_s * BAR_CELLS))
            table.add_row("", Text("━" * full + "─" * (BAR_CELLS - full)))
        self._live.update(table)

    def note(self, sentence: str) -> None:
        """The note, above the table."""
        self._console.print(f"engine: {sanitise(sentence)}", markup=False, highlight=False)

    def end(self) -> None:
        """Clear the table."""
        self._live.stop()


def choose_view(*, quiet: bool, no_progress: bool) -> LoadView:
    """The way of showing that fits: nothing, plain lines, or a live view on a terminal."""
    if quiet or no_progress:
        return SilentView(quiet=quiet)
    return TerminalView() if sys.stderr.isatty() else PlainView()
