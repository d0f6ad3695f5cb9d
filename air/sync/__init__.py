"""The bridge: one engine behind every wire."""
