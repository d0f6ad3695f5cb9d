"""Who is on the other side, and that nobody else listens: Noise, TLS, private networks."""
