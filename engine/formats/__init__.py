"""The formats' table: name -> where its object is. A new format is one file and one line here."""

from importlib import import_module
from typing import cast

from engine.core.errors import UsageError
from engine.formats.base import Format

FORMATS: dict[str, str] = {
    "jsonl": "engine.formats.jsonl:JSONL",
    "csv": "engine.formats.csv:CSV",
    "tsv": "engine.formats.csv:TSV",
    "parquet": "engine.formats.parquet:PARQUET",
    "openai-batch": "engine.formats.openai_batch:OPENAI_BATCH",
}


def format_named(name: str) -> Format:
    """The format of that name. Raises UsageError for an unknown one, or when its extra is not installed."""
    place = FORMATS.get(name)
    if place is None:
        raise UsageError(f"There is no format named {name!r}. Known: {', '.join(FORMATS)}.")
    module, _, attribute = place.partition(":")
    return cast(Format, getattr(import_module(module), attribute))
