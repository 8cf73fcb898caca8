"""A load worker: requests by a schedule instead of by rows, started as ``python -m engine.worker.load``."""
