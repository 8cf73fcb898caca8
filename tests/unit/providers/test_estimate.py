"""Token estimates and charging rules."""

from typing import Any

import pytest

from engine.core.model import Charge
from engine.providers.estimate import (
    TOKENS_MAX,
    charge_by_larger,
    charge_by_sum,
    choices_in,
    limit_in,
    size_of_messages,
    tokens_of,
    tokens_of_body,
)


def test_a_conversation_is_as_large_as_its_texts() -> None:
    parts = [
        {"type": "text", "text": "abcd"},
        {"type": "image_url", "image_url": {"url": "data:" + "x" * 900}},
    ]
    messages = [
        {"role": "system", "content": "ab"},
        {"role": "user", "content": parts},
        {"role": "assistant"},
    ]
    assert size_of_messages(messages) == 6


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, 0),
        ({"prompt": "abcde"}, 2),
        ({"input": "abcd"}, 1),
        ({"input": ["abcde", "abcde"]}, 4),
        ({"input": [1, 2, 3]}, 3),
        ({"input": [[1, 2], [3]]}, 3),
        ({"messages": [{"role": "user", "content": "abcd"}], "system": "abcd"}, 2),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "abcdefgh"}]}]}, 2),
        ({"system": [{"type": "text", "text": "abcd"}]}, 1),
        ({"messages": "no list", "input": 7, "prompt": None}, 2),
    ],
)
def test_the_question_in_any_body_is_counted(body: dict[str, Any], tokens: int) -> None:
    assert tokens_of_body(body) == tokens


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, 0),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_output_tokens": 7}, 7),
        ({"options": {"num_predict": 8}}, 8),
        ({"options": {"num_predict": -1}}, 0),
        ({"options": "none"}, 0),
        ({"max_tokens": -5}, 0),
        ({"max_tokens": 10**18}, TOKENS_MAX),
        ({"max_tokens": "many"}, 0),
        ({"max_tokens": True}, 0),
        ({"max_tokens": None}, 0),
    ],
)
def test_a_limit_out_of_a_body_is_clamped(body: dict[str, Any], limit: int) -> None:
    assert limit_in(body) == limit


def test_several_answers_are_the_larger_of_n_and_best_of() -> None:
    assert choices_in({}) == 1
    assert choices_in({"n": 3, "best_of": 5}) == 5
    assert choices_in({"n": -3, "best_of": "x"}) == 1


def test_the_two_rules_charge_the_larger_or_the_sum() -> None:
    assert charge_by_larger(10, 64) == Charge(10, 64, 64)
    assert charge_by_larger(100, 64) == Charge(100, 64, 100)
    assert charge_by_sum(10, 64) == Charge(10, 64, 74)
    assert charge_by_sum(TOKENS_MAX, TOKENS_MAX).tokens == TOKENS_MAX
    assert tokens_of(0) == 0 and tokens_of(1) == 1 and tokens_of(8) == 2
