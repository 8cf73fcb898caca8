"""Histogram logs against HdrHistogram's own package, in both directions."""

import base64
import random
import zlib
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from engine.core.histogram import VALUE_US_MAX, Histogram
from engine.observe.hlog import (
    COOKIE,
    COOKIE_COMPRESSED,
    INNER,
    OUTER,
    Interval,
    decoded,
    encoded,
    heading,
    intervals,
    line,
)

WALL_S = 1_441_812_279.474


def of(seed: int, many: int = 3_000) -> Histogram:
    found = Histogram()
    draw = random.Random(seed)
    for _ in range(many):
        found.record(int(draw.lognormvariate(11, 1.5)))
    return found


def test_a_log_is_read_by_hdrhistogram_bucket_by_bucket(tmp_path: Path) -> None:
    first, second = of(1), of(2)
    path = tmp_path / "x.hlog"
    path.write_text(
        heading(WALL_S, "a load test")
        + line(Interval(0.0, 1.0, first, "latency"))
        + line(Interval(1.0, 1.0, second))
    )
    reader = HistogramLogReader(str(path), HdrHistogram(1, VALUE_US_MAX, 3))
    for ours, start_s, tag in ((first, 0.0, "latency"), (second, 1.0, None)):
        theirs = reader.get_next_interval_histogram()
        assert theirs.get_total_count() == ours.count
        assert [(index, theirs.get_count_at_index(index)) for index, _ in ours.buckets()] == list(
            ours.buckets()
        )
        assert theirs.get_value_at_percentile(99) == ours.quantile_us(0.99)
        assert theirs.get_start_time_stamp() == pytest.approx((WALL_S + start_s) * 1000)
        assert theirs.get_tag() == tag
    assert reader.get_next_interval_histogram() is None
    assert reader.get_start_time_sec() == WALL_S
    reader.input_file.close()


def test_what_hdrhistogram_writes_is_read_here() -> None:
    ours, theirs = Histogram(), HdrHistogram(1, VALUE_US_MAX, 3)
    for value_us in (0, 1, 2_047, 2_048, 5_000_000, 5_000_000, VALUE_US_MAX):
        ours.record(value_us)
        theirs.record_value(value_us)
    assert list(decoded(theirs.encode().decode()).buckets()) == list(ours.buckets())


@pytest.mark.parametrize("many", [1, 63, 64, 8_192, 2**40, 2**56, 2**60, 2**62])
def test_counts_of_every_size_are_those_of_hdrhistogram(many: int) -> None:
    theirs = HdrHistogram(1, VALUE_US_MAX, 3)
    theirs.record_value(1_000, many)
    ((index, count),) = decoded(theirs.encode().decode()).buckets()
    assert (index, count) == (1_000, many)


def test_a_histogram_of_another_unit_is_refused() -> None:
    nanoseconds = HdrHistogram(1_000, VALUE_US_MAX, 3)
    nanoseconds.record_value(5_000)
    with pytest.raises(ValueError, match="no histogram of whole microseconds"):
        decoded(nanoseconds.encode().decode())


def test_a_log_comes_back_as_it_was_but_for_the_exact_sum() -> None:
    for histogram in (Histogram(), of(3), of(4, 1)):
        (found,) = intervals(heading(WALL_S) + line(Interval(2.5, 1.0, histogram, "ttft")))
        assert found[:2] == (2.5, 1.0) and found.tag == "ttft"
        assert list(found.histogram.buckets()) == list(histogram.buckets())
        assert found.histogram.sum_us == pytest.approx(histogram.sum_us, rel=1e-3)


def test_counts_of_every_size_are_written_and_read() -> None:
    for many in (1, 63, 64, 8_191, 8_192, 2**31, 2**48, 2**55, 2**56, 2**62):
        histogram = Histogram()
        histogram.record_bucket(5_000, many)
        histogram.record_bucket(23_000, 1)
        assert list(decoded(encoded(histogram)).buckets()) == [(5_000, many), (23_000, 1)]


@pytest.mark.parametrize("tag", ["a,b", "a b", "a\nb"])
def test_a_tag_that_would_break_the_line_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        line(Interval(0.0, 1.0, Histogram(), tag))


@pytest.mark.parametrize("cut", ["", "HIST", "HISTFAAAAEV42pNpmSzMwMCg", "AAAAAAAAAAAAAAAA", "é"])
def test_a_line_that_is_no_histogram_is_refused_with_its_number(cut: str) -> None:
    with pytest.raises(ValueError, match="line 1 of the histogram log"):
        list(intervals(f"0.0,1.0,1.0,{cut}\n"))


def test_a_histogram_that_unpacks_to_far_too_much_is_refused() -> None:
    packed = zlib.compress(bytes(50_000_000), 9)
    bomb = base64.b64encode(
        (0x1C849314).to_bytes(4, "big") + len(packed).to_bytes(4, "big") + packed
    ).decode()
    with pytest.raises(ValueError, match="larger than an hour's"):
        decoded(bomb)


def test_a_count_far_beyond_an_hour_is_refused_before_a_number_of_its_size_is_made() -> None:
    counts = bytes([*([0xFF] * 8), 0x7F, 2])  # 2**62 empty buckets, then one value
    packed = zlib.compress(INNER.pack(COOKIE, len(counts), 0, 3, 1, VALUE_US_MAX, 1.0) + counts)
    text = base64.b64encode(OUTER.pack(COOKIE_COMPRESSED, len(packed)) + packed).decode()
    with pytest.raises(ValueError, match="beyond an hour"):
        decoded(text)
