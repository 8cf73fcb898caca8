"""The histogram log: read back by our own reader and by HdrHistogram's package, figure by figure."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from loadtests import calm, outcome, plan

from engine.core.histogram import VALUE_US_MAX
from engine.core.measuring import STREAMED, Measures
from engine.loadtest.histories import history
from engine.observe import hlog


def test_there_is_one_line_for_each_figure_over_the_whole_window() -> None:
    asked = plan(is_streamed=True, warmup_s=2.0)
    measures = calm(asked)
    found = list(hlog.intervals(history(asked, outcome(measures))))
    assert {one.tag for one in found} == set(measures.names) >= set(STREAMED)
    assert {(one.start_s, one.length_s) for one in found} == {(2.0, 10.0)}
    for one in found:
        assert list(one.histogram.buckets()) == list(measures.histograms[one.tag].buckets())


def test_hdrhistogram_reads_it_with_the_clocks_time(tmp_path: Path) -> None:
    measures = calm(plan())
    path = tmp_path / "x.hlog"
    path.write_text(history(plan(), outcome(measures)))
    reader = HistogramLogReader(str(path), HdrHistogram(1, VALUE_US_MAX, 3))
    first = reader.get_next_interval_histogram()
    assert (first.get_tag(), first.get_total_count()) == ("latency", 1_000)
    assert first.get_value_at_percentile(99) == measures.histograms["latency"].quantile_us(0.99)
    assert reader.get_start_time_sec() == datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
    reader.input_file.close()


@pytest.mark.parametrize(
    "started_at", ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00+00:00", "2026-03-01T13:00:00+01:00"]
)
def test_the_start_is_read_in_every_form_of_utc(started_at: str) -> None:
    said = history(plan(), outcome(Measures(), started_at=started_at))
    assert "#[StartTime: 1772366400.000 " in said
    assert list(hlog.intervals(said)) == []


def test_an_address_cannot_add_lines() -> None:
    asked = plan(asked={"url": "http://x/\nTag=latency,0,1,1,AAAA"})
    assert len(history(asked, outcome(Measures())).splitlines()) == 5
