"""OpenAI batch files: JSON Lines with ``custom_id``, ``method``, ``url`` and ``body`` on each line.

OpenAI's batch guide: an output line has ``id``, ``custom_id``, ``response`` (``status_code``, ``request_id``,
``body``) and ``error``. Those lines are made by ``record.py``; here they are only read and written as lines.
Every line is answered, also one whose ``custom_id`` was seen before: a stream cannot know all ids.
"""

from engine.formats.jsonl import JSONLines


class OpenAIBatch(JSONLines):
    """The format. No file ending is its own; files are recognised by their content."""

    name = "openai-batch"
    endings: tuple[str, ...] = ()


OPENAI_BATCH = OpenAIBatch()
