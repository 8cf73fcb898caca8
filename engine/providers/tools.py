"""Tool calls as an answer: what a model returns when it was given tools (``--param tools=…``, batch lines).

Rules of this file:
1. Every provider's shape becomes the same: a list of objects with ``name`` and ``arguments``, in the order called.
2. Arguments are a JSON value where they are valid JSON, else the text the model wrote: it was paid for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from engine.core.nesting import ANSWER_NESTING_MAX, is_nested_deeper
from engine.providers.replies import JSON_ERRORS, dict_in, text_in

ARGUMENTS_NESTING_MAX = ANSWER_NESTING_MAX - 5  # they become a part of the answer

ToolCalls = list[dict[str, Any]]


def from_functions(calls: Any) -> ToolCalls:
    """``tool_calls`` of OpenAI's chat (arguments are JSON text) and of Ollama (arguments are an object)."""
    return _read(dict_in(dict_in(call).get("function")) for call in _listed(calls))


def from_blocks(blocks: Any) -> ToolCalls:
    """Content blocks of type ``tool_use``: Anthropic's messages."""
    used = [block for block in map(dict_in, _listed(blocks)) if block.get("type") == "tool_use"]
    return _read({"name": block.get("name"), "arguments": block.get("input")} for block in used)


def from_output(items: Any) -> ToolCalls:
    """Output items of type ``function_call``: OpenAI's Responses."""
    return _read(item for item in map(dict_in, _listed(items)) if item.get("type") == "function_call")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read(functions: Iterable[Mapping[str, Any]]) -> ToolCalls:
    return [
        {"name": name, "arguments": _arguments(function.get("arguments"))}
        for function in functions
        if (name := text_in(function.get("name")))
    ]


def _arguments(value: Any) -> Any:
    if not isinstance(value, str) or is_nested_deeper(
        value.encode("utf-8", "replace"), ARGUMENTS_NESTING_MAX
    ):
        return value
    try:
        return msgspec.json.decode(value)
    except JSON_ERRORS:
        return value
