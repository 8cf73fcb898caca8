"""Functions for ``call`` steps that turn what pages are made of into text for prompts. Needs the extra ``text``.

Rules of this file:
1. No page raises and none holds up a worker for ever, however odd: input is cut at ``HTML_CHARS_MAX``, the parser is lxml's,
   whose time grows with the length alone, and what is nested too deeply becomes plain text.
2. What a page says is kept (headings, paragraphs, lists, links, tables, code); what every page of its site says is dropped
   (menus, banners, footers, forms), as is what is no text (scripts, styles, pictures without a description).

The converter is markdownify: MIT, released several times a year, works on a parsed page, so that noise is taken out by its
structure. html2text, the other well-kept one, is GPL, parses for itself, and writes a table's cells without their frame.
"""

import html as entities
import re
from typing import Any, Final

from engine.core.errors import UsageError

try:
    import lxml.etree
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter
except ModuleNotFoundError as error:
    raise UsageError(
        f"engine.text needs {error.name}, which is not installed: pip install 'throughput-engine[text]'"
    ) from None

HTML_CHARS_MAX: Final = 2_000_000
URL_CHARS_MAX: Final = 2_000  # a longer link is no address but data
PARSER: Final = lxml.etree.__name__.partition(".")[0]
_DROPPED: Final = frozenset({
    "script", "style", "noscript", "template", "head", "svg", "canvas", "iframe", "object", "embed", "audio", "video", "map",
    "nav", "form", "button", "select", "textarea", "input", "dialog", "menu",
})  # fmt: skip
_AROUND: Final = frozenset(
    {"header", "footer", "aside"}
)  # a site's, unless they stand in what the page says:
_WITHIN: Final = frozenset({"article", "main"})
_ROLES: Final = frozenset({"navigation", "banner", "contentinfo", "search", "dialog", "menu", "menubar"})
_XML: Final = re.compile(r"[\s\ufeff]*<\?xml[^>]*\?>")
_GAPS: Final = re.compile(r"\n{3,}")
_LONG_SPACE: Final = re.compile(r"\s{100,}")  # the converter's time grows with the square of such a stretch
_OPTIONS: Final[dict[str, Any]] = {
    "heading_style": "atx",
    "bullets": "-",
    "escape_asterisks": False,  # the text is read by a model, not set by a printer
    "escape_underscores": False,
    "newline_style": "backslash",
    "table_infer_header": True,
    "strip_pre": None,
}


_plain: Any = MarkdownConverter


class _Converter(MarkdownConverter):  # type: ignore[misc, unused-ignore]
    """markdownify's, which passes over what is not to be read instead of having it cut out of the page: that would take
    time with the square of a page's length."""

    def process_tag(self, node: Any, parent_tags: set[str] | None = None) -> str:
        if parent_tags and _is_noise(node, parent_tags):
            return ""
        return str(_plain.process_tag(self, node, parent_tags=parent_tags))

    def convert_a(self, el: Any, text: str, parent_tags: set[str]) -> str:
        if _is_no_address(el.get("href")):
            return text
        return str(_plain.convert_a(self, el, text, parent_tags))

    def convert_img(self, el: Any, text: str, parent_tags: set[str]) -> str:
        if not str(el.get("alt") or "").strip() or _is_no_address(el.get("src")):
            return ""
        return str(_plain.convert_img(self, el, text, parent_tags))

    def convert_td(self, el: Any, text: str, parent_tags: set[str]) -> str:
        return str(_plain.convert_td(self, el, text.replace("|", "\\|"), parent_tags))

    def convert_th(self, el: Any, text: str, parent_tags: set[str]) -> str:
        return str(_plain.convert_th(self, el, text.replace("|", "\\|"), parent_tags))


_converter = _Converter(**_OPTIONS)


def html_to_markdown(html: str) -> str:
    """The page's content as Markdown: ``#`` headings, ``-`` lists, ``[text](address)``, tables with ``|``.

    ``html``: a page or a part of one; of more than ``HTML_CHARS_MAX`` characters the rest is left out. Links stay as they are
    written, relative ones too. A page without a heading of the first order is given its title as one. Raises TypeError for what
    is no text, and nothing for any text.
    """
    if not isinstance(html, str):
        raise TypeError(f"html_to_markdown takes the text of a page, not {type(html).__name__}")
    text = html[:HTML_CHARS_MAX].encode("utf-8", "replace").decode().replace("\x00", "")
    declaration = _XML.match(text)
    if declaration is not None:
        text = text[declaration.end() :]
    if "<" not in text:
        return entities.unescape(text).strip()
    soup = BeautifulSoup(_LONG_SPACE.sub(_shorter, text), PARSER)
    title = _title_of(soup)
    try:
        found = str(_converter.convert_soup(soup))
    except (
        Exception
    ):  # nested too deeply (RecursionError), or odd in a way that the converter does not expect
        found = soup.get_text("\n", strip=True)
    found = "\n".join(line.rstrip() for line in found.split("\n"))
    found = _GAPS.sub("\n\n", found).strip()
    return f"# {title}\n\n{found}".strip() if title else found


def _shorter(space: re.Match[str]) -> str:
    return "\n\n" if "\n" in space[0] else " "


def _title_of(soup: Any) -> str:
    """The page's title, if no heading says it."""
    found = soup.title
    if found is None or soup.find("h1") is not None:
        return ""
    return " ".join(str(found.get_text()).split())[:500]


def _is_noise(tag: Any, parents: set[str]) -> bool:
    """Whether a tag is not part of what the page says."""
    if tag.name in _DROPPED or (tag.name in _AROUND and not parents & _WITHIN):
        return True
    attributes = tag.attrs
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _ROLES
        or "display:none" in str(attributes.get("style", "")).replace(" ", "").lower()
    )


def _is_no_address(value: Any) -> bool:
    address = str(value or "").strip()
    return (
        not address
        or len(address) > URL_CHARS_MAX
        or address.lower().startswith(("javascript:", "data:", "#"))
    )
