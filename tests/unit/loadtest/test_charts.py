"""Charts are well-formed pictures of what they are given, whatever that is."""

from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.loadtest.charts import HEIGHT, LEFT, WIDTH, Chart, Trace
from engine.loadtest.scales import clock, linear

SVG = "{http://www.w3.org/2000/svg}"
VALUES = st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=1, max_size=60)


def drawn(*traces: Trace, told: tuple[tuple[float, float, str], ...] = ()) -> ElementTree.Element:
    length = max(len(trace.points) for trace in traces)
    chart = Chart("A & B", clock(0, length), linear(1e6), "x", "<y>", traces, told)
    return ElementTree.fromstring(chart.svg())


def points(values: list[float | None]) -> list[tuple[float, float | None]]:
    return [(number + 0.5, value) for number, value in enumerate(values)]


@settings(max_examples=60)
@given(VALUES, st.sampled_from(["line", "area", "bars"]))
def test_every_chart_is_well_formed_and_stays_within_its_frame(
    values: list[float | None], shape: str
) -> None:
    picture = drawn(Trace("<name>", "first", points(values), shape))
    for element in picture.iter():
        for pair in element.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert LEFT <= x <= WIDTH and 0 <= y <= HEIGHT
        for key in ("width", "height"):
            assert float(element.get(key, 0)) >= 0


def test_a_gap_in_the_values_is_a_gap_in_the_line_and_a_lone_value_is_a_dot() -> None:
    picture = drawn(Trace("p50", "first", points([1.0, 2.0, None, 5.0, None, 3.0, 4.0])))
    assert [len(line.get("points", "").split()) for line in picture.iter(f"{SVG}polyline")] == [2, 2]
    assert len(list(picture.iter(f"{SVG}circle"))) == 1


def test_only_what_is_drawn_is_named() -> None:
    picture = drawn(Trace("sent", "first", points([1.0, 2.0])), Trace("gone", "second", points([None, None])))
    assert [text.text for text in picture.iter(f"{SVG}text") if text.get("class") == "key"] == ["sent"]


def test_bars_stand_for_what_is_more_than_nothing_and_the_smallest_is_seen() -> None:
    picture = drawn(Trace("failed", "bad", points([0.0, 1.0, None, 900_000.0]), "bars"))
    bars = [bar for bar in picture.iter(f"{SVG}rect") if bar.get("y") and float(bar.get("x", 0)) > LEFT + 20]
    assert len(bars) == 2
    assert all(float(bar.get("height", 0)) >= 1 for bar in bars)


def test_words_are_escaped_in_texts_and_in_attributes() -> None:
    picture = drawn(Trace('"<b>', "first", points([1.0])), told=((0, 1, "</title><script>"),))
    assert picture.get("aria-label") == "A & B"
    assert [title.text for title in picture.iter(f"{SVG}title")] == ["</title><script>"]
    assert not list(picture.iter(f"{SVG}script")) and not list(picture.iter(f"{SVG}b"))
