"""Ways to put messages into bytes that more than one protocol uses."""
