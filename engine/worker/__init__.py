"""A worker: an event loop with hundreds of requests in flight, started as ``python -m engine.worker``."""
