"""Small jobs for tests."""

from dataclasses import replace
from typing import Any

from engine.config import Job, StepSettings
from engine.core.model import Target


def job(**changes: Any) -> Job:
    """A job over nothing in particular, with changes."""
    made = Job(
        input="in.jsonl",
        output="out.jsonl",
        input_format="jsonl",
        output_format="jsonl",
        state="out.jsonl.run",
        target=Target(provider="openai", base_url="http://127.0.0.1:9/v1", model="m"),
        step=StepSettings(prompt="{{ text }}"),
        procs=2,
    )
    return replace(made, **changes)
