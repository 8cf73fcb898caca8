"""``engine load``: what is sent and when, the crew of worker processes that sends it, and an honest report of it."""
