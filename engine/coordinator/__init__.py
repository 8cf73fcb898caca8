"""The coordinator: reads, leases, commits, supervises, publishes. Never parses a reply, never blocks its loop."""
