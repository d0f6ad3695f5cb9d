"""The graph peer: an engine that merges, relays, defers, asks and acknowledges. It never waits."""
