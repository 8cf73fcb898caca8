"""``engine compare``: load tests against a baseline, for people and for CI.

Rules of this file:
1. Reads files of results only. A table of at most 80 columns and a sentence for each test, or one JSON object.
2. Exit code 0 when nothing is worse, 99 when something is, or when a test is not fit to be compared.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.loadtest.compare import Comparison, Line
    from engine.loadtest.reading import Results

MATTERS_MAX = 10.0
_WIDTHS = (19, 9, 9, 7, 15, 15)  # and a space between each
_EXAMPLES = """Examples:

\b
  engine compare before.json after.json
  engine compare main.json branch.json --matters 10% --json

\b
Exit code: 0 nothing is worse, 99 something is worse or a test was not VALID, 2 wrong use."""


def compare_command(
    files: Annotated[
        list[str], typer.Argument(help="Results of engine load --out; the first is the baseline.")
    ],
    matters: Annotated[
        str, typer.Option(help="The smallest relative change that counts, like 5% or 0.05.")
    ] = "5%",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> int:
    """Compare load tests with the first of them: per metric better, worse, no change or not enough data."""
    from engine.core.errors import ExitCode, UsageError
    from engine.loadtest.compare import CONFIDENCE, compare

    if len(files) < 2:
        raise UsageError(
            "Comparing takes two files or more: the baseline first, then what is held against it."
        )
    least = _share(matters)
    baseline = _read(files[0])
    found = [compare(baseline, _read(name), name=name, matters=least) for name in files[1:]]
    if as_json:
        said = {"baseline": files[0], "matters": least, "confidence": CONFIDENCE}
        print(json.dumps({**said, "comparisons": [one.plain() for one in found]}))
    else:
        print("\n\n".join("\n".join(_text(files[0], one)) for one in found))
    is_fine = all(one.is_concluded and not one.is_worse for one in found)
    return int(ExitCode.OK if is_fine else ExitCode.THRESHOLD)


def _share(text: str) -> float:
    from engine.core.errors import UsageError
    from engine.core.quantities import split

    parts = split(text)
    share = -1.0 if parts is None or parts[1] not in ("", "%") else float(parts[0])
    share = share / 100 if text.strip().endswith("%") else share
    if not 0 <= share <= MATTERS_MAX:
        raise UsageError(f"--matters {text!r} is not like 5% or 0.05, up to 1000%.")
    return share


def _read(name: str) -> "Results":
    from engine.core.errors import UsageError
    from engine.loadtest.reading import BYTES_MAX, read_results

    try:
        with Path(name).open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{name} cannot be read: {why}.") from None
    return read_results(data, name)


def _text(baseline: str, found: "Comparison") -> "Iterator[str]":
    from engine.observe.sanitise import sanitise

    names = f"{sanitise(found.name, 200)} against {sanitise(baseline, 200)}"
    yield names
    if found.lines:
        yield _row("metric", "baseline", "now", "change", "99% interval", "verdict")
    for line in found.lines:
        yield _line(line, found.is_concluded)
    for note in found.notes:
        yield f"Note: {note}"
    yield f"{names}: {found.conclusion()}."


def _line(line: "Line", is_concluded: bool) -> str:
    scale, found = line.scale, line.found
    if scale:
        unit = "pt" if line.unit == "share" else "%"  # percentage points
        change = _percent(found.value / scale) + unit
        ends = f"{_percent(found.low / scale)}…{_percent(found.high / scale)}{unit}"
    else:  # of a baseline of 0 there is no part
        change, ends = f"{found.value:+.3g}", f"{found.low:+.3g}…{found.high:+.3g}"
    was, now = _figure(line.old, line.unit), _figure(line.new, line.unit)
    return _row(line.name, was, now, change, ends, line.change.value if is_concluded else "–")


def _row(*cells: str) -> str:
    first, *middle, last = zip(cells, _WIDTHS, strict=True)
    parts = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in middle), last[0]]
    return " ".join(parts)


def _percent(part: float) -> str:
    """A signed percentage, without the sign for it, of about three digits."""
    if abs(part) >= 100:
        return f"{part * 100:+.1g}".replace("inf", "∞")
    digits = 0 if abs(part) >= 1 else 1 if abs(part) >= 0.01 else 2
    return f"{part * 100:+.{digits}f}"


def _figure(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value:.3%}"
    digits = 0 if value >= 10_000 else 1 if value >= 100 else 3
    figure = f"{value:,.{digits}f}" if value < 1e7 else f"{value:.3g}"
    return f"{figure}{unit if unit == 'ms' else ''}"


compare_command.__doc__ = f"{compare_command.__doc__}\n\n{_EXAMPLES}"
