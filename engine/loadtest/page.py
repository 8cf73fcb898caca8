"""The report of a load test as one HTML page: no script, nothing fetched, the same on screen, in the dark and on paper.

Rules of this file:
1. A pure function of the results. Whatever is text passes ``_words`` on its way in: sanitised, then escaped.
2. The page says of itself that it may load nothing (Content-Security-Policy), so that a hole would be a dull one.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from engine.loadtest import pictures
from engine.loadtest.charts import Chart
from engine.loadtest.style import STYLE
from engine.loadtest.wording import (
    MEANINGS,
    NOTHING,
    STATISTICS,
    TIMES,
    between,
    moment,
    ms,
    number,
    rate,
    reached,
    seconds,
    share,
    tried,
    with_unit,
)
from engine.observe.sanitise import sanitise

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
TONES: Final = {"VALID": "good", "CLIENT-LIMITED": "warn", "INVALID": "fail"}
WORDS_MAX: Final = 400
WORKERS: Final = ("worker", "of a core", "loop lag p99", "most in flight", "held back", "waited for quota")


def page(results: Mapping[str, Any]) -> str:
    """The whole document. Raises ValueError when a histogram in the results cannot be read."""
    target = _target(results)
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{_words(results['verdict'])}: load test of {_words(target)}</title>\n<style>{STYLE}</style>\n",
            "</head>\n<body>\n<main>\n",
            *_head(results, target),
            *_search(results),
            *_facts(results),
            *_charts(results, tables := _tables(results)),
            *_times(results),
            *_promises(results),
            f'<div class="grid tables">{"".join(tables)}</div>\n',
            f"<footer>engine {_words(results['engine'])}. Intervals hold the truth in 95 of 100 tests; they take into "
            "account that requests of one second resemble each other.</footer>\n",
            "</main>\n</body>\n</html>\n",
        )
    )


def _words(text: Any) -> str:
    """Text of any origin, fit to stand in the page and in its attributes."""
    return escape(sanitise(text if isinstance(text, str) else json.dumps(text, default=str), WORDS_MAX))


def _target(results: Mapping[str, Any]) -> str:
    test = results["test"]
    return " ".join(str(test[key]) for key in ("url", "base_url", "model") if test.get(key)) or "an endpoint"


def _head(results: Mapping[str, Any], target: str) -> Iterator[str]:
    tone = TONES.get(results["verdict"], "fail")
    yield f'<div class="head"><span class="badge {tone}">{_words(results["verdict"])}</span>'
    yield f"<h1>{_words(target)}</h1></div>\n"
    parts = [f"begun {_words(moment(results['started_at']))}", f"{seconds(results['window_s'])} measured"]
    if results["warmup_s"]:
        parts.append(f"after a warm-up of {seconds(results['warmup_s'])}")
    parts.append(f"{seconds(results['lasted_s'])} in all")
    yield f'<p class="soft">{", ".join(parts)}</p>\n'
    if results["reasons"]:
        items = "".join(f"<li>{_words(reason)}</li>" for reason in results["reasons"])
        yield f'<ul class="reasons {tone}">{items}</ul>\n'


def _search(results: Mapping[str, Any]) -> Iterator[str]:
    """What a search for the highest rate tried; the rest of the page is of its best probe."""
    found = results.get("find_max")
    if not found:
        return
    rows = [
        [
            rate(one["rate"]),
            tried(one),
            NOTHING if one["attainment"] is None else share(one["attainment"]),
            ms(one["response_time_p99_ms"]),
            _words(one["why"]),
        ]
        for one in found["probes"]
    ]
    yield _table(
        "The highest rate", ["tried, per s", "", "attained", "p99 in ms", "why"], rows, found["says"]
    )


def _facts(results: Mapping[str, Any]) -> Iterator[str]:
    achieved = f"{rate(results['achieved_rate'])}/s"
    asked = results["asked_rate"]
    beside = "closed loop" if asked is None else f"{rate(asked)}/s asked"
    if results["achieved"] is not None:
        beside += f", {share(results['achieved'])} achieved"
    facts = [("Rate", achieved, beside)]
    facts.append(("Completed", number(results["completed"]), f"of {number(results['intended'])} intended"))
    failed = f"{number(results['failed'])} failed, {number(results['dropped'])} dropped"
    facts.append(("Errors", share(results["error_rate"]), failed))
    for name in ("response_time", "ttft_sched"):
        figures = results.get(f"{name}_ms")
        if figures:
            tail = f"p99 {with_unit(figures['p99'])}"
            facts.append((f"{_title(name)}, p50", with_unit(figures["p50"]), tail))
    if results["tokens_source"]:
        total = f"{number(results['tokens_out'])} in all, from {results['tokens_source']}"
        facts.append(("Output tokens", f"{rate(results['output_tokens_per_s'])}/s", total))
    if results["slo"]:
        sure = between(results["attainment_ci"], share)
        facts.append(("Attainment", share(results["attainment"]), f"95% sure: {sure}"))
        facts.append(("Goodput", f"{rate(results['goodput'])}/s", "met every objective"))
    items = (
        f"<div><dt>{_words(name)}</dt><dd>{_words(value)}<small>{_words(beside)}</small></dd></div>"
        for name, value, beside in facts
    )
    yield f'<dl class="facts{" many" if len(facts) > 6 else ""}">{"".join(items)}</dl>\n'


def _title(name: str) -> str:
    return TIMES[name][0].upper() + TIMES[name][1:]


def _charts(results: Mapping[str, Any], tables: list[str]) -> Iterator[str]:
    """The charts; where their number leaves a hole, the first of the tables fills it and is taken out."""
    parts = pictures.stretches(results)
    if not parts:
        return
    curve = pictures.percentiles(results)
    joined = len(parts[0].entries)
    note = (
        f"Every point is of {joined} seconds: the median one's p50, the worst one's p99."
        if joined > 1
        else ""
    )
    found = [_figure(pictures.rates(parts))]
    if results["completed"]:
        found.append(_figure(pictures.times(parts, "latency"), note))
        if "ttft_ms" in results and results["ttft_ms"]["count"]:
            found.append(_figure(pictures.times(parts, "ttft"), note))
    if curve is not None:
        found.append(_figure(curve, "Every nine has the same width: 90%, 99%, 99.9%."))
    if results["failed"] or results["dropped"]:
        found.append(_figure(pictures.failures(parts)))
    else:
        found.append(
            '<div class="card"><h2>Errors over time</h2><p>No request failed and none was dropped.</p></div>'
        )
    if len(found) % 2:
        found.append(tables.pop(0))
    yield f'<div class="grid">{"".join(found)}</div>\n'


def _figure(chart: Chart, note: str = "") -> str:
    below = f'<p class="soft">{_words(note)}</p>' if note else ""
    return f'<figure class="card"><figcaption>{_words(chart.title)}</figcaption>{chart.svg()}{below}</figure>'


def _times(results: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in TIMES if results.get(f"{name}_ms", {}).get("count")]
    if not names:
        return
    rows = []
    for name in names:
        figures = results[f"{name}_ms"]
        cells = [f"{_title(name)}<small>{escape(MEANINGS[name])}</small>"]
        for key in STATISTICS:
            ends = figures["ci"].get(key)
            cells.append(ms(figures[key]) + (f"<small>{between(ends)}</small>" if ends else ""))
        rows.append([*cells, number(figures["count"])])
    yield _table(
        "Times in milliseconds", ["", *STATISTICS.values(), "count"], rows,
        "Of requests that succeeded. Below each figure its 95% interval.",
    )  # fmt: skip


def _promises(results: Mapping[str, Any]) -> Iterator[str]:
    """Objectives and thresholds: what was promised, and whether it was kept."""
    if results["slo"]:
        rows = []
        for one in results["slo"]:
            sure = between([one["low"], one["high"]], share) if one["of"] else NOTHING
            rows.append(
                [_words(one["text"]), _mark(one["holds"], "held", "missed"), share(one["attainment"]), sure,
                 share(one["share"]), f"{number(one['met'])} of {number(one['of'])}"]
            )  # fmt: skip
        columns = ["objective", "", "attained", "95% interval", "asked", "requests"]
        yield _table("Objectives", columns, rows, "Errors and dropped requests count against them.")
    if results["thresholds"]:
        rows = [
            [_words(one["text"]), _mark(not one["broken"], "kept", "broken"), _words(reached(one))]
            for one in results["thresholds"]
        ]
        note = "" if results["verdict"] == "VALID" else "A test that is not VALID passes none."
        yield _table("Thresholds", ["threshold", "", "figure"], rows, note)


def _mark(is_well: bool, well: str, ill: str) -> str:
    return f'<span class="badge {"good" if is_well else "fail"}">{well if is_well else ill}</span>'


class _Words(str):
    """A cell that is prose: it may take several lines."""


def _tables(results: Mapping[str, Any]) -> list[str]:
    """Errors by kind, requests by what became of them, the workers, and what was asked; what is empty is left out."""
    tried = results["completed"] + results["failed"]
    errors = [
        [_words(kind), number(many), share(many / tried if tried else None)]
        for kind, many in results["errors"].items()
    ]
    counts = [
        ["intended by the schedule", number(results["intended"])],
        ["sent", number(results["sent"])],
        ["completed", number(results["completed"])],
        ["failed", number(results["failed"])],
        ["dropped, never sent", number(results["dropped"])],
        ["sent more than 10 ms late", number(results["late"])],
        ["of the warm-up, in no figure", number(results["warm_up"])],
    ]
    workers = [
        [number(one["slot"]), share(one["cpu_share"]), with_unit(one["loop_lag_p99_ms"]), number(one["in_flight_peak"]),
         number(one["held_back"]), number(one["quota_waited"])]
        for one in results["workers"]
    ]  # fmt: skip
    asked = [
        [_words(str(key)), _Words(_words(value))]
        for key, value in results["test"].items()
        if value is not None
    ]
    tables = (
        ("Errors", ("kind", "count", "of those attempted"), errors),
        ("Requests", ("", "count"), counts),
        ("The client itself", WORKERS, workers),
        ("What was asked", ("", ""), asked),
    )
    return [_table(title, columns, rows) for title, columns, rows in tables if rows]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """A card with a table; cells are HTML already, the first of each row its heading."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
    heading = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows)
    below = f'<p class="soft">{_words(note)}</p>' if note else ""
    return (
        f'<section class="card"><h2>{escape(title)}</h2><div class="wide"><table>{heading}'
        f"<tbody>{body}</tbody></table></div>{below}</section>\n"
    )


def _cells(row: Sequence[str]) -> Iterator[str]:
    first, *rest = row
    yield f"<th scope=row>{first}</th>"
    for cell in rest:
        yield f'<td class="words">{cell}</td>' if isinstance(cell, _Words) else f"<td>{cell}</td>"
