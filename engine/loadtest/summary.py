"""What a person reads on a terminal when a load test has ended: the verdict first, then the figures.

Rules of this file:
1. Plain text of the results alone, without colour; foreign text is sanitised on its way in.
2. What is nothing takes no line: no errors, no tokens, no objectives.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from engine.loadtest.wording import (
    KINDS,
    NOTHING,
    STATISTICS,
    TIMES,
    between,
    ms,
    number,
    rate,
    reached,
    seconds,
    share,
    tried,
)
from engine.observe.sanitise import sanitise

COLUMNS: Final = 80  # the narrowest
COLUMNS_MAX: Final = 140  # a line that is longer is hard to read
LABEL: Final = 13
UNBROKEN: Final = "\N{NO-BREAK SPACE}"  # keeps a figure and its name on one line
NAME, CELL = 18, 8
RANDOM: Final = ("poisson", "gamma")  # arrivals
SURE_OF: Final = ("response_time", "latency", "ttft")  # whose intervals are told


def text(results: Mapping[str, Any], columns: int = COLUMNS) -> str:
    """The report, without a line's end at its end. Bounds: as wide as ``columns``, but from 80 to 140."""
    columns = min(max(columns, COLUMNS), COLUMNS_MAX)
    parts = [
        [*_search(results, columns)],
        [*_verdict(results, columns)],
        [*_load(results, columns)],
        [*_table(results)],
        [*_outcome(results, columns)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _search(results: Mapping[str, Any], columns: int) -> Iterator[str]:
    """What a search for the highest rate tried; the rest is of its best probe."""
    found = results.get("find_max")
    if not found:
        return
    yield from textwrap.wrap(sanitise(found["says"], 1000), columns)
    yield ""
    yield f"{'tried, per s':>{LABEL}}  {'':<8}  {'attained':>8}  {'p99 in ms':>9}"
    for one in found["probes"]:
        attained = share(one["attainment"]) if one["attainment"] is not None else NOTHING
        line = f"{rate(one['rate']):>{LABEL}}  {tried(one):<8}  {attained:>8}"
        why = f"{line}  {ms(one['response_time_p99_ms']):>9}  {sanitise(one['why'], 200)}".rstrip()
        for part in textwrap.wrap(why, columns, subsequent_indent=" " * 47, drop_whitespace=False):
            yield part.rstrip()
    yield ""
    yield "The best of them:" if found["rate"] is not None else "The last of them:"


def _verdict(results: Mapping[str, Any], columns: int) -> Iterator[str]:
    meaning = {
        "VALID": "the client kept up",
        "CLIENT-LIMITED": "these figures are not the endpoint's alone",
        "INVALID": "these figures mean nothing",
    }
    yield f"{results['verdict']}: {meaning[results['verdict']]}"
    for reason in results["reasons"]:
        yield from textwrap.wrap(
            sanitise(reason), columns, initial_indent="  - ", subsequent_indent="    ", break_long_words=False
        )


def _load(results: Mapping[str, Any], columns: int) -> Iterator[str]:
    test = results["test"]
    where = [sanitise(str(test[key]), 200) for key in ("url", "base_url", "model") if test.get(key)]
    if where:
        yield from _lines("endpoint", [", ".join(where)], columns)
    yield from _lines("rate", [_rate(results)], columns)
    times = [f"{seconds(results['window_s'])} measured"]
    if results["warmup_s"]:
        times.append(f"{seconds(results['warmup_s'])} of warm-up before it")
    times.append(f"{seconds(results['lasted_s'])} in all")
    yield from _lines("time", [", ".join(times)], columns)
    yield from _lines("requests", _counts(results), columns)
    errors = results["errors"]
    if errors:
        yield from _lines(
            "errors", [f"{share(results['error_rate'])} of the requests that were attempted"], columns
        )
        width = max(len(number(many)) for many in errors.values())
        for kind, many in errors.items():
            means = f": {KINDS[kind]}" if kind in KINDS else ""
            yield f"{'':{LABEL}}{number(many):>{width}}  {sanitise(kind)}{means}"


def _rate(results: Mapping[str, Any]) -> str:
    achieved = f"{rate(results['achieved_rate'])}/s"
    if results["asked_rate"] is None:
        return f"{achieved}, as replies came (closed loop)"
    kept = "" if results["achieved"] is None else f" ({share(results['achieved'])})"
    return f"{rate(results['asked_rate'])}/s asked{_chance(results)}, {achieved} achieved{kept}"


def _chance(results: Mapping[str, Any]) -> str:
    """What a random schedule came to, where that is not what it was asked for: neither was the client's doing."""
    asked, window_s = results["asked_rate"], results["window_s"]
    if results["test"].get("arrival") not in RANDOM or results["interrupted"] or not window_s or not asked:
        return ""
    drawn = results["intended"] / window_s
    return f" ({rate(drawn)}/s by chance)" if abs(drawn - asked) > 0.001 * asked else ""


def _counts(results: Mapping[str, Any]) -> list[str]:
    parts = [
        f"{number(results[key])} {key}"
        for key in ("intended", "sent", "completed", "failed", "dropped")
        if results[key] or key not in ("failed", "dropped")
    ]
    if results["late"]:
        parts.append(f"{number(results['late'])} sent late")
    if results["warm_up"]:
        parts.append(f"{number(results['warm_up'])} in the warm-up")
    return [", ".join(part.replace(" ", UNBROKEN) for part in parts)]


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in TIMES if results.get(f"{name}_ms", {}).get("count")]
    if not names:
        return
    yield f"{'times in ms':<{NAME}}" + "".join(f"{title:>{CELL}}" for title in STATISTICS.values())
    for name in names:
        figures = results[f"{name}_ms"]
        yield f"{TIMES[name]:<{NAME}}" + "".join(f"{ms(figures[key]):>{CELL}}" for key in STATISTICS)
    sure = [name for name in SURE_OF if name in names]
    if sure:
        yield ""
        titles = "".join(f"  {title:<18}" for title in ("p50", "p99", "p99.9"))
        yield f"{'95% sure, in ms':<{NAME}}{titles}".rstrip()
    for name in sure:
        ends = results[f"{name}_ms"]["ci"]
        cells = "".join(f"  {between(ends[key]):<18}" for key in ("p50", "p99", "p99_9"))
        yield f"{TIMES[name]:<{NAME}}{cells}".rstrip()


def _outcome(results: Mapping[str, Any], columns: int) -> Iterator[str]:
    if results["tokens_source"]:
        counted, completed = results["tokens_counted"], results["completed"]
        said = f" in {number(counted)} of {number(completed)} replies" if counted < completed else ""
        yield from _lines(
            "tokens",
            [
                f"{number(results['tokens_in'])} in, {number(results['tokens_out'])} out, "
                f"{rate(results['output_tokens_per_s'])} out/s (from {results['tokens_source']}{said})"
            ],
            columns,
        )
    if results["slo"]:
        yield from _lines("objectives", [_objective(one) for one in results["slo"]], columns)
        low_high = between(results["attainment_ci"], share)
        yield from _lines(
            "goodput",
            [
                f"{rate(results['goodput'])}/s, {share(results['attainment'])} of all intended "
                f"(95% sure: {low_high})"
            ],
            columns,
        )
    if results["thresholds"]:
        lines = [
            f"{'BROKEN' if one['broken'] else 'kept':<7} {sanitise(one['text'], 200)}: {reached(one)}"
            for one in results["thresholds"]
        ]
        if results["verdict"] != "VALID":
            lines.append("A test that is not VALID passes none.")
        yield from _lines("thresholds", lines, columns)


def _objective(one: Mapping[str, Any]) -> str:
    sure = between([one["low"], one["high"]], share) if one["of"] else NOTHING
    return (
        f"{'held' if one['holds'] else 'MISSED':<7} {sanitise(one['text'], 200)}: {share(one['attainment'])} "
        f"({sure}), {share(one['share'])} asked"
    )


def _lines(label: str, texts: Sequence[str], columns: int) -> Iterator[str]:
    """A label and, beside it, texts of one or more lines each."""
    first = label
    for one in texts:
        for line in textwrap.wrap(one, columns - LABEL, break_long_words=False, subsequent_indent="  "):
            yield f"{first:<{LABEL}}{line}".replace(UNBROKEN, " ")
            first = ""
