"""Whether a JSON schema meets OpenAI's rules for strict structured output.

Rules of this file:
1. From OpenAI's structured-outputs guide: the root is an object, every property is required, and no object allows
   others. A schema that breaks them is sent with ``strict: false``; the answer is validated here in any case.
"""

from collections.abc import Mapping
from typing import Any

NESTING_MAX = 10


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether ``strict: true`` may be asked for."""
    return schema.get("type") == "object" and _fits(schema, 0)


def _fits(node: Any, depth: int) -> bool:
    if depth > 4 * NESTING_MAX:
        return False
    if isinstance(node, list):
        return all(_fits(item, depth + 1) for item in node)
    if not isinstance(node, Mapping):
        return True
    properties = node.get("properties")
    if isinstance(properties, Mapping):
        required = node.get("required")
        if node.get("additionalProperties") is not False or set(properties) != set(required or ()):
            return False
    return all(
        _fits(value, depth + 1) for name, value in node.items() if name not in ("enum", "const", "default")
    )
