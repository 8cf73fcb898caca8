"""The run's memory on disk. The only folder that imports sqlite3."""

from engine.core.commit import Commit, Counts, OutcomeRow
from engine.store.folder import move_aside
from engine.store.opening import DATABASE_NAME
from engine.store.store import Store

__all__ = ["DATABASE_NAME", "Commit", "Counts", "OutcomeRow", "Store", "move_aside"]
