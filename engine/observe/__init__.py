"""What a run shows of itself: metrics, the live view, the log, the summary."""
