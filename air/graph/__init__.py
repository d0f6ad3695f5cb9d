"""The graph peer: an engine that merges, relays, defers, asks and acknowledges; it computes and never waits."""
