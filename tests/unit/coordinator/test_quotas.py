"""Which quota a run's calls count in."""

from pathlib import Path

import pytest
from jobs import job

from engine.config import Job, StepSettings
from engine.coordinator.limiting import Limiting
from engine.coordinator.quotas import limiting_of
from engine.core.model import Target


def quota_of(folder: Path, url: str) -> Limiting:
    target = Target(provider="http", base_url=url)
    made: Job = job(
        target=target, step=StepSettings(kind="request", url=url), rpm=60, limiter_dir=str(folder)
    )
    return limiting_of(
        made,
        (),
        label="test",
        spare=folder / "spare",
        hide=[],
        note=lambda text: None,
        on_change=lambda: None,
    )


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("{{ url }}", "{{ url }}", True),
        ("{{ url }}", "{{ page }}", False),
        ("http://127.0.0.1:9/{{ a }}", "http://127.0.0.1:9/{{ b }}", True),
        ("{{ url }}", "http://127.0.0.1:9/{{ a }}", False),
    ],
)
def test_where_rows_name_their_hosts_the_limits_are_the_templates_own(
    tmp_path: Path, one: str, other: str, is_same: bool
) -> None:
    found = [quota_of(tmp_path, url).socket for url in (one, other)]
    assert (found[0] == found[1]) is is_same
