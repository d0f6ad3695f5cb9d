"""Air: a peer-to-peer graph database that speaks GUN."""

__version__ = "0.1.0"
