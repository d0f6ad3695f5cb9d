"""yamux 1.0.0: streams with flow control."""
