"""``python -m engine.worker``: one worker process. Its settings come as one line on standard input."""

import sys

from engine.launchers.process import die_with_parent, named_parent

if __name__ == "__main__":
    # Before the imports below, which take most of a start: who loses its parent meanwhile is not to outlive it.
    if not die_with_parent(named_parent()):
        sys.exit(0)

from engine.credentials import Auth
from engine.handover import WorkerSettings
from engine.worker.loop import Worker
from engine.worker.process import serve


def make_worker(settings: WorkerSettings, auth: tuple[Auth, ...]) -> Worker:
    """The worker that fits the job."""
    if not settings.job.steps:
        return Worker(settings, auth)
    from engine.worker.chainloop import ChainWorker  # most jobs need none of it

    return ChainWorker(settings, auth)


if __name__ == "__main__":
    sys.exit(serve(WorkerSettings, make_worker))
