"""The swarm: dials, sessions, limits, and what a node knows of its peers."""

from air.swarm.api import Host, Service, StreamHandler
from air.swarm.lifecycle import PeerEvent, Stage
from air.swarm.session import Session
from air.swarm.stream import Stream
from air.swarm.swarm import Swarm, SwarmConfig

__all__ = [
    "Host",
    "PeerEvent",
    "Service",
    "Session",
    "Stage",
    "Stream",
    "StreamHandler",
    "Swarm",
    "SwarmConfig",
]
