"""The page: one file that loads nothing, in which every foreign word is only a word."""

from copy import deepcopy
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadtests import calm, notes, outcome, plan

from engine.loadtest import model
from engine.loadtest.page import page
from engine.loadtest.results import results_of
from engine.loadtest.summary import text

VOID = {"meta", "br", "link", "img", "input", "hr"}
FETCHING = {
    "script",
    "link",
    "img",
    "iframe",
    "object",
    "embed",
    "audio",
    "video",
    "source",
    "base",
    "form",
    "image",
    "use",
}


class Reader(HTMLParser):
    """Reads a page as a browser would, and insists that every element is closed where it ought to be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def whole(is_streamed: bool = True) -> tuple[model.LoadPlan, model.Tested]:
    slo = "ttft.p99<800ms" if is_streamed else "latency.p99<800ms"
    asked = plan(is_streamed=is_streamed, slos=(slo,), fail_if=("response_time.p99>2s", "error_rate>1%"))
    measures = calm(asked, 500, failed=20)
    measures.dropped(4.0, 12)
    return asked, outcome(measures, notes(), notes(1, cpu_s=9.8))


RESULTS = results_of(*whole())
TAGS = set(Reader(page(RESULTS)).tags)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_it_stands_alone(is_streamed: bool) -> None:
    text = page(results_of(*whole(is_streamed)))
    reader = Reader(text)
    assert not FETCHING & set(reader.tags)
    assert not [
        name for name, _ in reader.attributes if name in ("src", "href", "style") or name.startswith("on")
    ]
    assert "url(" not in text and "@import" not in text
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes
    for scheme in ("prefers-color-scheme: dark", "@media print"):
        assert scheme in text


@pytest.mark.parametrize(("is_streamed", "charts"), [(False, 4), (True, 5)])
def test_it_shows_the_verdict_the_charts_and_the_figures(is_streamed: bool, charts: int) -> None:
    results = results_of(*whole(is_streamed))
    reader = Reader(page(results))
    assert reader.tags.count("svg") == charts
    for word in (
        "CLIENT-LIMITED", "Requests per second", "Latency over time", "Percentiles", "Errors over time", "http_5xx",
        "Response time", "missed", "broken", "error_rate>1%", "A test that is not VALID passes none.",
        *results["reasons"],
    ):  # fmt: skip
        assert word in reader.words, word
    assert ("TTFT over time" in reader.words) is is_streamed


def test_a_test_without_failures_says_so_instead_of_drawing_nothing() -> None:
    reader = Reader(page(results_of(plan(), outcome(calm(plan())))))
    assert "No request failed and none was dropped." in reader.words
    assert reader.tags.count("svg") == 3


@pytest.mark.parametrize(("many", "failed"), [(0, 0), (1, 0), (1, 1)])
def test_tests_of_nothing_and_of_one_request_have_a_page(many: int, failed: int) -> None:
    asked = plan(fail_if=("latency.p99>1s",), slos=("latency<1s",))
    length_s = 0.01 * many
    found = outcome(calm(asked, many, failed=failed), window_s=length_s, lasted_s=length_s)
    found.notes.clear()
    reader = Reader(page(results_of(asked, found)))
    assert not {"nan", "inf", "None", "NaN"} & {word for words in reader.words[1:] for word in words.split()}


@settings(max_examples=40, deadline=None)
@given(
    st.text(max_size=60),
    st.sampled_from(["<script>alert(1)</script>", "\"'><img src=x>", "</title>", "&lt;b", "\x1b[2J"]),
)
def test_no_foreign_word_becomes_markup(text: str, attack: str) -> None:
    hostile = attack + text
    found = deepcopy(RESULTS)
    found["test"] |= {"url": hostile, "model": hostile, hostile: [hostile], "nested": {"a": hostile}}
    found["errors"][hostile] = 3
    found["reasons"].append(hostile)
    for one in (*found["slo"], *found["thresholds"]):
        one |= {"text": hostile, "says": hostile}
    found |= {"engine": hostile, "started_at": hostile}
    reader = Reader(page(found))
    assert set(reader.tags) == TAGS
    assert "\x1b" not in "".join(reader.words)


def test_a_search_shows_each_try_and_which_of_them_decided_nothing() -> None:
    found = deepcopy(RESULTS)
    one = {
        "rate": 80.0,
        "passed": False,
        "why": "",
        "attainment": 0.5,
        "response_time_p99_ms": 9.0,
        "counted": True,
    }
    tries = [one | {"passed": True}, one | {"counted": False}, one]
    found["find_max"] = {"says": "The highest rate.", "rate": 80.0, "probes": tries}
    words = Reader(page(found)).words
    assert [word for word in words if word in ("held", "failed", "repeated")][:3] == [
        "held",
        "repeated",
        "failed",
    ]
    lines = [line.split() for line in text(found).splitlines()]
    assert [line[1] for line in lines if line[:1] == ["80.0"]] == ["held", "repeated", "failed"]
