"""The native wire: the graph over a stream of a libp2p connection. See docs/native-wire.md."""
