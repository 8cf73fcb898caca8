"""Refusals that name flags, as a program is told them."""

import pytest

from engine.api.wording import in_python
from engine.core.errors import UsageError


@pytest.mark.parametrize(
    ("flags", "keywords"),
    [
        ("--in-flight 0 cannot be used", "max_flows 0 cannot be used"),
        ("Give one with --model NAME.", "Give one with model=NAME."),
        ("Give one of --prompt, --prompt-file.", "Give one of prompt, prompt_file."),
        ("or --fresh to start over", "or fresh=True to start over"),
        ("--retry-failed, --on-change redo", 'retry_failed(), on_change="redo"'),
        ("raise --tpm 500 or --max-tokens", "raise tpm 500 or max_tokens"),
        ("no --flags of others, --models", "no --flags of others, --models"),
    ],
)
def test_flags_are_said_as_keyword_arguments(flags: str, keywords: str) -> None:
    assert str(in_python(UsageError(flags))) == keywords
