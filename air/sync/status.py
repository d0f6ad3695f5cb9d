"""What an operator sees of a running graph: its links and its counters. (core)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from air.base.metrics import Counters
from air.graph.engine import Engine
from air.graph.mesh import LinkId
from air.sync.partition import PartitionWatch

__all__ = ["LinkInfo", "describe"]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link as an operator sees it."""

    id: LinkId
    role: str
    address: str
    peer: str
    opened_seconds: float
    messages_in: int
    messages_out: int
    cells_in: int
    """Fields that came, whether they were news or not."""
    subscriptions: int
    queued_bytes: int


def describe(
    counters: Counters, engine: Engine, partition: PartitionWatch, links: Callable[[], float]
) -> None:
    """Declare the counters of an engine and of those who carry out what it wants."""
    counters.describe("air_refused_total", "Messages refused, by code.", "code")
    counters.describe("air_peer_errors_total", "Errors that peers reported to us.")
    counters.describe("air_cut_total", "Links that were cut, by code.", "code")
    counters.describe("air_store_errors_total", "Batches and reads the store failed, by code.", "code")
    memory = engine.memory
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "air_cells_accepted": ("Fields that won and were kept.", lambda: engine.accepted),
        "air_cells_ignored": ("Fields that were old, equal or lower.", lambda: engine.ignored),
        "air_duplicates": ("Messages that had been seen.", lambda: engine.duplicates),
        "air_cache_hits": ("Reads answered from memory.", lambda: engine.hits),
        "air_cache_misses": ("Reads that went to disk.", lambda: engine.misses),
        "air_cache_bytes": ("Memory that nodes take.", lambda: memory.bytes),
        "air_cache_nodes": ("Nodes in memory.", lambda: len(memory)),
        "air_cache_evicted": ("Nodes that had to leave memory.", lambda: memory.evicted),
        "air_deferred": ("Writes that wait for their time.", lambda: len(engine.deferred)),
        "air_subscribed_nodes": (
            "Nodes that somebody wants to hear of.",
            lambda: len(engine.near.interest),
        ),
        "air_owed_cells": ("Fields that a dialled peer has not acknowledged.", engine.near.owed),
        "air_owed_dropped": ("Owed fields that were given up, to stay in bounds.", engine.near.dropped),
        "air_owed_refused": ("Writes that a dialled peer refused.", lambda: engine.near.refused),
        "air_split": ("1 while too many peers are missing.", lambda: float(partition.split is not None)),
        "air_splits": ("Times that the network came apart.", lambda: partition.splits),
        "air_links": ("Links to other peers.", links),
    }
    for name, (help, read) in gauges.items():
        counters.gauge(name, help, read)
