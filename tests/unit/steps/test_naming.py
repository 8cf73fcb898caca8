"""What a template names, and what of it it cannot do without."""

import pytest

from engine.steps.template import Template, absent


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("{{ a }}", "a"),
        ("{{ a or b }}", "b"),
        ("{{ a or b or c }}", "c"),
        ("{{ (a or b) or 'none' }}", ""),
        ("{{ a and b }}", "b"),
        ("{{ a and a.title }}", ""),
        ("{{ a or b }} {{ a }}", "a b"),
        ("{{ a | default(b) }}", "b"),
        ("{{ a | d('x') | upper }}", ""),
        ("{{ a | upper | default('x') }}", "a"),
        ("{{ a | upper }}", "a"),
        ("{{ row['a'] or row.b }}", "b"),
        ("{{ not a }}", ""),
        ("{{ a is defined }}{{ b is none }}{{ c is undefined }}", ""),
        ("{{ a is mapping }}", "a"),
        ("{{ a == 'x' }}", "a"),
        ("{{ 'x' if a else b }}", "b"),
        ("{{ a if a else b }}", "b"),
        ("{{ a if b else c }}", "a c"),
        ("{% if a %}{{ a }} {{ b }}{% endif %}", "b"),
        ("{% if not a %}{{ b }}{% elif c %}{{ c }}{{ a }}{% else %}{{ d }}{% endif %}", "b d"),
        ("{% if a is defined and a.b == 2 %}{{ a }}{% endif %}", ""),
        ("{% if a == 2 %}{{ a }}{% endif %}", "a"),
        ("{% if a or b %}{{ a }}{{ b }}{% endif %}", ""),
        ("{% for x in a %}{{ x }}{% endfor %}", "a"),
        ("{% for x in a or [] %}{{ x }}{{ b }}{% endfor %}", "b"),
        ("{% filter upper %}{{ a }}{{ b or '' }}{% endfilter %}", "a"),
        ("{% set x = a %}{{ x or b }}", "a b"),
        ("{{ b[a.title] or '' }}", "a b"),
        ("no column", ""),
    ],
)
def test_what_a_template_asks_for_first_it_can_do_without(text: str, needed: str) -> None:
    template = Template(text)
    assert template.needed == set(needed.split())
    there = {"title": "t", "t": "y"}
    template.render({name: there if name in template.needed else absent(name) for name in template.columns})


def test_what_is_absent_is_none_and_false_and_not_defined_and_empty() -> None:
    text = "{{ a is none }} {{ a is not defined }} {{ a == none }} {{ a != none }} {{ not a }} [{{ a }}] {{ a is not none }}"
    assert Template(text).render({"a": absent("a")}) == "true true true false true [] false"
    assert Template(text).render({"a": None}) == "true false true false true [] false"


def test_null_is_defined_as_ever() -> None:
    assert Template("[{{ a | default('x') }}]").render({"a": None}) == "[]"
    assert Template("[{{ a | default('x') }}]").render({"a": absent("a")}) == "[x]"
