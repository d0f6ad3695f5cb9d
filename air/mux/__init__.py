"""Many streams over one connection: yamux, and mplex for old peers."""
