"""The rows of the relay benchmark: what is done, how much of it is under way, and the goal. (core)"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    """What ``--only`` matches."""
    title: str
    kind: str
    """``put``, ``get``, ``fan``, ``idle`` or ``nodes``."""
    clients: int = 4
    in_flight: int = 64
    """Per client; for ``fan`` of the one writer."""
    batch: bool = False
    """Messages go in arrays of up to 9,000 characters, as gun's clients send what is said in one tick."""
    subscribers: int = 0
    items: int = 0
    """Nodes written before (``get``), sockets (``idle``) or nodes (``nodes``)."""
    messages: int | None = None
    """Send this many instead of running for a time, so that the watched node grows alike on both sides."""
    goal_ratio: float | None = None
    """Air's rate over the stock relay's, at least."""
    goal_cpu_ratio: float | None = None
    """The stock relay's CPU per operation over Air's, at least."""
    goal_p50_ms: float | None = None
    goal_p99_ms: float | None = None
    goal_bytes: float | None = None
    """Memory of one item, at most."""


ROWS = (
    Row("put-64", "put, 4 clients x 64 in flight", "put", 4, 64, goal_ratio=30, goal_p99_ms=25),
    Row("put-1", "put, one at a time", "put", 1, 1, goal_p50_ms=2),
    Row("put-5000", "put, 5,000 in flight", "put", 4, 1250, batch=True, goal_ratio=4, goal_cpu_ratio=4),
    Row("get-256", "get by soul, 256 in flight", "get", 4, 64, items=20_000),
    Row("get-8000", "get by soul, 8,000 in flight", "get", 4, 2000, batch=True, items=20_000, goal_ratio=8),
    Row(
        "fan-10-64", "fan-out to 10, 64 in flight", "fan", 1, 64, subscribers=10, goal_ratio=10, goal_p50_ms=5
    ),
    Row(
        "fan-10",
        "fan-out to 10, 5,000 in flight",
        "fan",
        1,
        5000,
        batch=True,
        subscribers=10,
        messages=20_000,
        goal_ratio=4,
    ),
    Row(
        "fan-100",
        "fan-out to 100, 5,000 in flight",
        "fan",
        1,
        5000,
        batch=True,
        subscribers=100,
        messages=10_000,
        goal_ratio=2,
    ),
    Row("idle", "memory of an idle WebSocket", "idle", items=1_000, goal_bytes=24 * 1024),
    Row("nodes", "memory of a one-field node", "nodes", 4, 1250, True, items=60_000, goal_bytes=0.7 * 1024),
)
"""Operations of ``fan`` rows are deliveries."""
