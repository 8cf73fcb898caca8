"""Templates: what they give out, what they refuse, and that both ways of rendering agree."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.steps import template as module
from engine.steps.template import Template, columns_used, text_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def failure(text: str, row: dict[str, Any]) -> str:
    with pytest.raises(RowError) as caught:
        Template(text).render(row)
    assert caught.value.kind is ErrorKind.TEMPLATE_ERROR
    return caught.value.message


@given(first=VALUES, second=VALUES, literal=st.text(alphabet=st.characters(exclude_characters="{}%#\r")))
def test_the_path_without_jinja_gives_what_jinja_gives(first: Any, second: Any, literal: str) -> None:
    text = literal + "{{ a }}" + literal + "{{ row['b c'] }}\n"
    row = {"a": first, "b c": second}
    # A statement that writes nothing is enough to need Jinja.
    assert Template(text).render(row) == Template(text + "{% set unused = 1 %}").render(row)


@given(text=st.text())
def test_a_value_is_inserted_as_it_is_and_never_expanded_again(text: str) -> None:
    row = {"a": text + "{{ b }}{% raw %}{0.__class__}%s", "b": "secret"}
    assert Template("<{{ a }}>").render(row) == f"<{row['a']}>"
    assert Template("<{{ a|string }}>").render(row) == f"<{row['a']}>"


@given(value=VALUES)
def test_lists_objects_booleans_and_numbers_stand_as_json(value: Any) -> None:
    text = text_of(value)
    if isinstance(value, str):
        assert text == value
    elif value is None:
        assert text == ""
    else:
        assert json.loads(text) == value


def test_what_map_and_select_give_stands_as_a_list() -> None:
    assert Template("{{ tags|map('upper') }}").render({"tags": ["a", "b"]}) == '["A","B"]'


def test_the_trailing_newline_and_html_stay_as_they_are() -> None:
    assert Template("{{ a }}\n").render({"a": "<b>&"}) == "<b>&\n"


def test_filters_conditions_and_loops_work() -> None:
    text = (
        "{% for tag in tags if tag %}{{ loop.index }}:{{ tag|upper }} {% endfor %}{{ note|default('none') }}"
    )
    assert Template(text).render({"tags": ["a", "", "b"]}) == "1:A 2:B none"


def test_row_is_the_whole_row_even_if_a_column_has_that_name() -> None:
    assert Template("{{ row }}|{{ row.row }}|{{ row['row'] }}").render({"row": 1}) == '{"row":1}|1|1'


def test_a_method_name_after_row_is_a_column() -> None:
    assert Template("{{ row.items }}{{ row.keys }}!").render({"items": 1, "keys": 2}) == "12!"
    assert "no column 'items'" in failure("{{ row.items() }}", {"a": 1})


@pytest.mark.parametrize(
    "text", ["{{ b }}", "{{ b|upper }}", "{{ row['b'] }}", "{{ row.b }}", "{{ row['b']|upper }}"]
)
def test_a_missing_column_is_named(text: str) -> None:
    assert "the row has no column 'b'" in failure(text, {"a": "x"})


def test_the_line_of_an_expression_that_failed_is_named() -> None:
    assert "TypeError (line 3 of the template)" in failure("one\ntwo\n{{ a + 1 }}", {"a": "x"})


@pytest.mark.parametrize(
    "text",
    [
        "{{ a + 1 }}",
        "{{ row[a] }}",
        "{{ b[a] }}",
        "{{ b|attr(a) }}",
        "{{ b|sum(attribute=a) }}",
        "{{ a|round }}",
        "{{ {}[a] }}",
        "{{ b|groupby(a) }}",
        "{{ a % 1 }}",
        "{{ b.index(a) }}",
        "{{ range(a) }}",
    ],
)
def test_a_message_never_quotes_the_row(text: str) -> None:
    assert "canary" not in failure(text, {"a": "canary", "b": ["y"]})


@pytest.mark.parametrize(
    "text",
    [
        "{{ a.__class__ }}",
        "{{ a['__class__'] }}",
        "{{ a|attr('__class__') }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ ''.join.__globals__ }}",
        "{{ b.append(1) }}",
        "{{ row.__class__ }}",
        "{{ range.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ cycler.__init__ }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * b }}",
        "{{ 10 ** (10 ** 9) }}",
        "{{ 10 ** 900 ** 900 }}",
        "{% for x in range(10 ** 9) %}{% endfor %}",
        "{{ caller() }}",
    ],
)
def test_what_reaches_out_of_the_sandbox_fails_the_row(text: str) -> None:
    failure(text, {"a": "x", "b": [1]})


@pytest.mark.parametrize(
    "text", ["{{ a }}{{ a }}", "{{ a }}" * 9, "{% for x in range(9) %}{{ a }}{% endfor %}"]
)
def test_a_text_over_the_cap_fails_the_row(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_CHARS_MAX", 1_000)
    assert len(Template(text).render({"a": "x" * 100})) <= 1_000
    assert "longer than 1,000 characters" in failure(text, {"a": "x" * 600})


def test_a_template_that_fails_once_still_renders_the_next_row() -> None:
    template = Template("{{ a }}-{{ b }}")
    with pytest.raises(RowError):
        template.render({"a": "left over"})
    assert template.render({"a": 1, "b": 2}) == "1-2"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("no column", set()),
        ("{{ a }}{{ b|upper }}{% if c %}{{ d.e }}{% endif %}", {"a", "b", "c", "d"}),
        ("{{ row['my column'] }}{{ row.x }}{{ row[other] }}", {"my column", "x", "other"}),
        ("{% for x in xs %}{{ x }}{{ loop.index }}{% endfor %}", {"xs"}),
        ("{% set y = a %}{{ y }}{{ range(3) }}", {"a"}),
        ("{% for k, v in row|dictsort %}{{ k }}{% endfor %}", set()),
        ("{% raw %}{{ a }}{% endraw %}{# {{ b }} #}", set()),
    ],
)
def test_the_columns_of_a_template_are_known_before_any_row(text: str, columns: set[str]) -> None:
    assert columns_used(text) == columns
    assert Template(text).columns == columns


@pytest.mark.parametrize(
    "text",
    [
        "x\n{{ a",
        "x\n{% if a %}",
        "x\n{{ my column }}",
        "x\n{{ a|nofilter }}",
        "x\n{% if a %}{% if b is notest %}{% endif %}{% endif %}",
        "x\n{% if a %}{{ b|nofilter }}{% endif %}",
        "x\n{{ self }}",
        "x\n{% block a %}{% endblock %}{% block a %}{% endblock %}",
    ],
)
def test_a_template_that_is_none_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(UsageError, match="The system prompt is no valid template, line [23]: "):
        Template(text, what="the system prompt")


@pytest.mark.parametrize(
    "text", ["{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}"]
)
def test_a_template_cannot_bring_in_another_one(text: str) -> None:
    with pytest.raises(UsageError, match="another template in line 1"):
        columns_used(text)


def test_escaping_touches_values_and_not_literal_text() -> None:
    for text in ("a/{{ a }}/b", "a/{{ a|string }}/b", "{% if a %}a/{{ a }}/b{% endif %}"):
        assert Template(text, escape=lambda value: value.replace("/", "_")).render({"a": "/x"}) == "a/_x/b"


def test_a_template_knows_whether_it_is_constant_or_one_column() -> None:
    assert Template("text").constant
    assert Template("").constant
    assert not Template("{{ a }}").constant
    assert not Template("{{ 1 }}").constant
    assert Template("{{ a }}").only_column == "a"
    assert Template("{{ row['a b'] }}").only_column == "a b"
    for other in ("", " {{ a }}", "{{ a }}{{ b }}", "{{ a|upper }}", "{{ range }}"):
        assert Template(other).only_column is None
