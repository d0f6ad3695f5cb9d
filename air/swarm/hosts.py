"""How many connections one machine may have, and how quickly it may open them. (core)"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from air.base.bucket import TokenBucket
from air.base.clock import Now
from air.base.errors import LimitReached

__all__ = ["HostLimits", "HostLimitsConfig"]


@dataclass(frozen=True, slots=True)
class HostLimitsConfig:
    connections_max: int = 8
    """Inbound connections at a time from one IPv4 address or IPv6 /56 (as go-libp2p counts)."""
    opened_per_second: float = 5.0
    """Inbound connections one address may open in the long run."""
    opened_burst: int = 16
    """And at once, after a rest."""
    loopback_exempt: bool = True
    """Programs on this machine are not counted: they could all be different peers."""
    hosts_max: int = 16_384
    """Addresses remembered; the one that was quiet longest is forgotten first."""


class _Host:
    __slots__ = ("bucket", "open")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket, self.open = bucket, 0


class HostLimits:
    """Counts inbound connections by address: a token bucket and a ceiling for each."""

    def __init__(self, config: HostLimitsConfig | None = None) -> None:
        self._config = HostLimitsConfig() if config is None else config
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hosts)

    def opened(self, host: str, now: Now) -> str:
        """Count a new connection of ``host``, an IP address in text, and return what to give to ``closed``.

        Raises LimitReached ``limit.host.connections`` or ``limit.host.rate``. Text that is no IP address,
        such as the name of an in-memory peer, is not counted.
        """
        config = self._config
        group = host_group(host)
        if not group or (config.loopback_exempt and group == _LOOPBACK):
            return ""
        entry = self._hosts.get(group)
        if entry is None:
            # Room first: a newcomer that is forgotten would be counted from zero each time.
            self._make_room()
            bucket = TokenBucket(config.opened_burst, config.opened_per_second)
            entry = self._hosts[group] = _Host(bucket)
        else:
            self._hosts.move_to_end(group)
        entry.bucket.refill(now.monotonic)
        if entry.open >= config.connections_max:
            raise LimitReached(f"{group} has its connections", code="limit.host.connections")
        if entry.bucket.level < 1.0:
            raise LimitReached(f"{group} opens connections too quickly", code="limit.host.rate")
        entry.bucket.level -= 1.0
        entry.open += 1
        return group

    def closed(self, group: str) -> None:
        """The connection that ``opened`` returned ``group`` for has ended."""
        entry = self._hosts.get(group)
        if entry is not None and entry.open:
            entry.open -= 1

    def _make_room(self) -> None:
        if len(self._hosts) < self._config.hosts_max:
            return
        # Those with open connections stay, whatever their number: the system's ceiling bounds them.
        quiet = next((group for group, entry in self._hosts.items() if not entry.open), None)
        if quiet is not None:
            del self._hosts[quiet]


_LOOPBACK = "loopback"


def host_group(host: str) -> str:
    """The unit that is counted: the IPv4 address, the IPv6 /56, ``loopback``, or ``""`` for no IP address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not address.is_loopback:
            return str(ipaddress.ip_network((address, 56), strict=False))
    return _LOOPBACK if address.is_loopback else str(address)
