"""``--hlog``: the histograms of a load test as a log that HdrHistogram's own tools read and plot.

Rules of this file:
1. One interval line for each figure, over the whole window; its tag is the figure's name in the results.
"""

from collections.abc import Iterator
from datetime import datetime

from engine.loadtest.model import LoadPlan, Tested
from engine.observe import hlog
from engine.observe.sanitise import sanitise


def history(plan: LoadPlan, tested: Tested) -> str:
    """The log. Times are seconds since the test's start, so the window begins at the warm-up's end.

    Figures without values have no line. Raises ValueError when ``tested.started_at`` is no ISO 8601 time.
    """
    return "".join(_lines(plan, tested))


def _lines(plan: LoadPlan, tested: Tested) -> Iterator[str]:
    asked = plan.asked.get("url") or plan.asked.get("base_url") or ""
    yield hlog.heading(
        datetime.fromisoformat(tested.started_at).timestamp(),
        f"engine load {sanitise(str(asked), 200)}".strip(),
    )
    for name, histogram in tested.measures.histograms.items():
        if histogram.count:
            yield hlog.line(hlog.Interval(plan.warmup_s, tested.window_s, histogram, name))
