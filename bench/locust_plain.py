"""locust's FastHttpUser on the terms of bench/load.py: 64 users without pauses, for so many seconds; prints its count."""

import json
import sys

from locust import FastHttpUser, task
from locust.env import Environment

origin, seconds = sys.argv[1], float(sys.argv[2])


class Plain(FastHttpUser):
    """Asks for the same page over and over."""

    host = origin

    @task
    def ask(self) -> None:
        """One request."""
        self.client.get("/plain")


environment = Environment(user_classes=[Plain])
runner = environment.create_local_runner()
runner.start(64, spawn_rate=64)
runner.greenlet.join(timeout=seconds)
runner.quit()
print(json.dumps({"requests": environment.stats.total.num_requests}))
