"""Which address to try first, and what kind of place an address is. (core)"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from air.base.address import Multiaddr

__all__ = ["Reach", "host_of", "interleave", "is_relayed", "is_specific", "port_of", "reach_of"]

_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
"""Behind the address translation of a provider (RFC 6598): nobody outside can dial it."""
_HOSTS: Final = ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr")


class Reach(IntEnum):
    """How far away the host of an address is, nearest first."""

    LOOPBACK = 0
    PRIVATE = 1
    """A private or link-local network."""
    PUBLIC = 2
    """Anywhere, and every name: it is not known where it leads."""
    NOWHERE = 3
    """Unspecified, multicast or reserved: nothing that could be dialled."""


def host_of(address: Multiaddr) -> str:
    """The IP address or name of the first hop; ``""`` for an address without one, such as ``/memory/1``."""
    return next((part.value for part in address.parts if part.name in _HOSTS), "")


def port_of(address: Multiaddr) -> int:
    """The TCP or UDP port; 0 when there is none."""
    return next((int(part.value) for part in address.parts if part.name in ("tcp", "udp")), 0)


def reach_of(address: Multiaddr) -> Reach:
    """How far away the host is. ``/memory`` and ``/unix`` are this machine."""
    first = address.parts[0]
    if first.name in ("memory", "unix"):
        return Reach.LOOPBACK
    try:
        ip = ipaddress.ip_address(host_of(address).partition("%")[0])
    except ValueError:
        name = host_of(address).rstrip(".").lower()
        return Reach.LOOPBACK if name == "localhost" or name.endswith(".localhost") else Reach.PUBLIC
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return Reach.LOOPBACK
    if ip.is_unspecified or ip.is_multicast:
        return Reach.NOWHERE
    if ip.is_private or ip.is_link_local or ip in _SHARED:
        return Reach.PRIVATE
    return Reach.NOWHERE if ip.is_reserved else Reach.PUBLIC


def is_relayed(address: Multiaddr) -> bool:
    """Whether it leads through another peer."""
    return "p2p-circuit" in address.names


def is_specific(address: Multiaddr) -> bool:
    """Whether it can be dialled as it stands: not ``0.0.0.0``, and not port 0."""
    if reach_of(address) is Reach.NOWHERE:
        return False
    return not any(part.name in ("tcp", "udp") and part.value == "0" for part in address.parts)


def interleave(addresses: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Order for dialling: nearest first, plain TCP before what needs more round trips, relays last.

    IPv6 and IPv4 of the same kind take turns (RFC 8305, section 4), so a broken family costs one step.
    """

    def kind(address: Multiaddr) -> tuple[bool, int, int]:
        return is_relayed(address), reach_of(address), len(address.names)

    ordered = sorted(addresses, key=kind)
    found: list[Multiaddr] = []
    index = 0
    while index < len(ordered):
        level = kind(ordered[index])
        same = [one for one in ordered[index:] if kind(one) == level]
        index += len(same)
        six = [one for one in same if one.parts[0].name in ("ip6", "dns6")]
        four = [one for one in same if one.parts[0].name not in ("ip6", "dns6")]
        for turn in range(max(len(six), len(four))):
            found += six[turn : turn + 1] + four[turn : turn + 1]
    return found
