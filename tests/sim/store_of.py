"""The real store under a scripted run's commits: what it keeps is what the scripted disk kept.

Rules of this file:
1. The same groups in the same order, recoveries among them; then every figure is compared.
"""

import tempfile
from pathlib import Path
from typing import Any

from disk import Disk

from engine.store import Store


def differences(disk: Disk) -> dict[str, tuple[Any, Any]]:
    """Where the store and the scripted disk do not agree; {} is a pass."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "run", durability="os") as store:
        for group in disk.history:
            if group is None:
                store.recover()
            else:
                store.apply(group)
        kept = sorted(disk.outcomes.items())
        compared = {
            "finished": (
                [(row, ok) for row, _, ok in store.finished()],
                [(row, ok) for row, (ok, _, _) in kept],
            ),
            "records": (list(store.records()), [record for _, (_, _, record) in kept]),
            "steps": (store.steps_of(range(10_000)), [step for _, step in sorted(disk.steps.items())]),
            "attempts": (store.counts().attempts, disk.attempts),
            "in doubt": (store.in_doubt_total(), disk.in_doubt),
        }
    return {name: pair for name, pair in compared.items() if pair[0] != pair[1]}
