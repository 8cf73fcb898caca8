"""Pages as Markdown: what is kept, what is dropped, and that no page is too odd."""

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import UsageError
from engine.steps.finding import resolve
from engine.text import HTML_CHARS_MAX, html_to_markdown

PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>The  kettle</title><style>p { color: red }</style><script>var a = "<p>no</p>";</script></head>
<body>
<header><a href="/">Shop</a></header>
<nav><ul><li><a href="/a">Menu</a></li></ul></nav>
<main>
  <article>
    <header><h2>A <em>fine</em> kettle</h2></header>
    <p>Boils <b>1.7 l</b> &amp; more; see <a href="/manual?x=1">the manual</a>.<br>Item k_1 * 2</p>
    <ul><li>steel<ul><li>brushed</li></ul></li><li>glass</li></ul>
    <table><tr><th>Size</th><th>Price</th></tr><tr><td>1 l | 2 l</td><td>20 €</td></tr></table>
    <pre><code>boil(
    water)</code></pre>
    <img src="k.jpg" alt="The kettle"> <img src="data:image/png;base64,xx" alt="dot"> <img src="spacer.gif">
    <a href="javascript:void(0)">Zoom</a> <a href="#top">Up</a>
    <aside>Descale it monthly.</aside>
  </article>
</main>
<aside>Others bought toasters</aside>
<div role="navigation">Crumbs</div><p hidden>Secret</p><p style="display: none">Unseen</p>
<form><input value="q"><button>Search</button></form>
<footer>Imprint</footer>
<!-- a comment -->
</body></html>"""

TEXT = """# The kettle

## A *fine* kettle

Boils **1.7 l** & more; see [the manual](/manual?x=1).\\
Item k_1 * 2

- steel
  - brushed
- glass

| Size | Price |
| --- | --- |
| 1 l \\| 2 l | 20 € |

```
boil(
    water)
```

![The kettle](k.jpg)
Zoom Up
Descale it monthly."""


def test_what_a_page_says_is_kept_and_what_stands_around_it_is_dropped() -> None:
    assert html_to_markdown(PAGE) == TEXT


def test_a_page_with_a_heading_needs_no_title_and_one_without_html_is_its_text() -> None:
    assert html_to_markdown("<title>Shop</title><h1>Kettle</h1><p>Fine") == "# Kettle\n\nFine"
    assert html_to_markdown("  plain &amp; simple ") == "plain & simple"
    assert html_to_markdown("https://host/page.html") == "https://host/page.html"
    assert html_to_markdown("\ufeff<?xml version='1.0'?><p>x</p>") == "x"
    assert html_to_markdown("") == html_to_markdown("<html>") == ""


def test_only_text_is_a_page() -> None:
    with pytest.raises(TypeError, match="the text of a page, not NoneType"):
        html_to_markdown(None)  # type: ignore[arg-type]


ODD = {
    "unclosed comments": "<!--" * 50_000 + "x",
    "open brackets": "<" * 50_000,
    "open tags": "<a " * 50_000,
    "deep": "<div>" * 30_000 + "deep",
    "deep noise": "<nav>" * 30_000 + "deep",
    "deep tables": "<table><tr><td>" * 5_000 + "deep",
    "many": "<p>x" * 5_000,
    "spaces": "<p>x" + " " * 500_000 + "y" + "\n \n" * 200_000 + "<pre>" + "\t" * 500_000 + "z",
    "spans": "<table><tr><td colspan='²'>x<td colspan=99999999999>y",
    "starts": "<ol start='²'><li>x</ol>",
    "surrogates": "<p>\ud800x\udfff",
    "nulls": "<p>a\x00b</p>",
    "attributes": "<p " + " ".join(f"a{n}=b" for n in range(5_000)) + ">x",
    "entities": "&#x110000;&#xD800;&nosuch;&amp" * 1_000 + "<p>",
}


@pytest.mark.parametrize("name", ODD)
def test_no_page_is_too_odd(name: str) -> None:
    began = time.monotonic()
    found = html_to_markdown(ODD[name])
    assert found.encode() is not None  # text that can be kept
    assert time.monotonic() - began < 30


def test_what_is_nested_too_deeply_is_plain_text() -> None:
    assert html_to_markdown("<div>" * 5_000 + "<b>deep</b> and more") == "deep\nand more"


PIECES = [
    "<p>", "</p>", "<table>", "<tr>", "<td colspan=2>", "<a href='x'>", "</a>", "<li>", "<pre>", "<!--", "-->", "<ol start=7>",
    "<img alt=a src=b>", "<h3>", "<br>", "&lt;", "<![CDATA[", "]]>", "<script>", "</", "<?x",
]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=8), st.sampled_from(PIECES)), max_size=30),
)
def test_whatever_tags_are_thrown_together_give_text(parts: list[str]) -> None:
    assert isinstance(html_to_markdown("".join(parts)), str)


def test_a_page_that_is_too_long_is_cut() -> None:
    page = "<p>begin</p>" + " " * HTML_CHARS_MAX + "<p>end</p>"
    assert html_to_markdown(page) == "begin"


def test_without_the_extra_a_job_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "engine.text")
    monkeypatch.setitem(sys.modules, "markdownify", None)
    with pytest.raises(
        UsageError, match=r"engine.text needs markdownify, .*: pip install 'throughput-engine\[text\]'"
    ):
        resolve("engine.text:html_to_markdown")
