"""Charts as SVG text: lines, areas and bars over a test's seconds or over shares of its requests.

Rules of this file:
1. Text in, text out. Colours are classes of the page's style, so one chart serves light, dark and paper.
2. Every foreign or computed word is escaped where it enters the picture.
3. No line is told apart by colour alone: it has a name beside a sample, and dashes of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from engine.loadtest.scales import Scale

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 34, 40
CHARACTER: Final = 6.4  # of the legend's letters, about
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


@dataclass(frozen=True, slots=True)
class Trace:
    """One row of values over one x-axis. ``style`` is a class of the page; None leaves a gap."""

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]
    shape: str = "line"  # line, area, bars

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(y is None for _, y in self.points)


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture: what it is called, its axes, what is drawn, and what a pointer reads at each place."""

    title: str
    x: Scale
    y: Scale
    x_name: str
    y_name: str
    traces: Sequence[Trace]
    told: Sequence[tuple[float, float, str]] = ()  # from and to on the x-axis, and the words

    def svg(self) -> str:
        """The picture as one element, which takes the width it is given."""
        return "".join(self._parts())

    def _parts(self) -> Iterator[str]:
        yield (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}" '
            'xmlns="http://www.w3.org/2000/svg">'
        )
        yield from self._axes()
        for trace in self.traces:
            if trace.shape == "bars":
                yield from self._bars(trace)
            else:
                yield from self._line(trace)
        yield from self._legend()
        for start, end, words in self.told:
            left, right = self._across(start), self._across(end)
            yield (
                f'<rect class="told" x="{left:.1f}" y="{TOP}" width="{max(1.0, right - left):.1f}" '
                f'height="{PLOT_HEIGHT}"><title>{escape(words)}</title></rect>'
            )
        yield "</svg>"

    def _across(self, x: float) -> float:
        return LEFT + PLOT_WIDTH * self.x.place(x)

    def _down(self, y: float) -> float:
        return TOP + PLOT_HEIGHT * (1 - self.y.place(y))

    def _axes(self) -> Iterator[str]:
        for value, words in self.y.ticks:
            y = self._down(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(words)}</text>'
        base = TOP + PLOT_HEIGHT
        yield f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
        for value, words in self.x.ticks:
            x = self._across(value)
            yield f'<line class="base" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>'
            yield f'<text class="tick" x="{x:.1f}" y="{base + 17}" text-anchor="middle">{escape(words)}</text>'
        yield (
            f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(self.x_name)}</text>'
            f'<text class="axis" x="{LEFT - 7}" y="{TOP - 14}" text-anchor="end">{escape(self.y_name)}</text>'
        )

    def _legend(self) -> Iterator[str]:
        x = float(LEFT)
        y = TOP - 18
        for trace in self.traces:
            if trace.is_empty:
                continue
            if trace.shape == "line":
                yield f'<line class="line {trace.style}" x1="{x:.0f}" x2="{x + 20:.0f}" y1="{y}" y2="{y}"/>'
            else:
                yield f'<rect class="{trace.shape} {trace.style}" x="{x:.0f}" y="{y - 5}" width="20" height="10"/>'
            yield f'<text class="key" x="{x + 26:.0f}" y="{y + 4}">{escape(trace.name)}</text>'
            x += 26 + len(trace.name) * CHARACTER + 18

    def _line(self, trace: Trace) -> Iterator[str]:
        base = TOP + PLOT_HEIGHT
        for stretch in _stretches(trace.points):
            places = [(self._across(x), self._down(y)) for x, y in stretch]
            if len(places) == 1:  # a line of one point would not be seen
                yield f'<circle class="dot {trace.style}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"/>'
                continue
            way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            if trace.shape == "area":
                first, last = places[0][0], places[-1][0]
                way = f"{first:.1f},{base} {way} {last:.1f},{base}"
                yield f'<polygon class="area {trace.style}" points="{way}"/>'
            else:
                yield f'<polyline class="line {trace.style}" points="{way}"/>'

    def _bars(self, trace: Trace) -> Iterator[str]:
        """Bars from 0, each as wide as the gap to the next point."""
        xs = [x for x, _ in trace.points]
        gap = self._across(xs[1]) - self._across(xs[0]) if len(xs) > 1 else PLOT_WIDTH / 4
        width = max(1.0, gap * 0.8)
        base = self._down(0)
        for x, y in trace.points:
            if y:
                top = min(self._down(y), base - 1)  # the smallest count is seen too
                left = max(float(LEFT), self._across(x) - width / 2)
                yield (
                    f'<rect class="bars {trace.style}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
                    f'height="{base - top:.1f}"/>'
                )


def _stretches(points: Sequence[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    """The runs of points between gaps."""
    run: list[tuple[float, float]] = []
    for x, y in points:
        if y is not None:
            run.append((x, y))
        elif run:
            yield run
            run = []
    if run:
        yield run
