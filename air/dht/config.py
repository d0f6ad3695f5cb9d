"""What can be set about the DHT. (core)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from air.base.errors import ConfigError

__all__ = ["PROTOCOL", "KadConfig"]

PROTOCOL: Final = "/ipfs/kad/1.0.0"

_HOUR: Final = 3600.0
_FROM_ZERO: Final = ("failures_max", "provider_keys_max", "records_max", "refresh_bits_max")


@dataclass(frozen=True, slots=True)
class KadConfig:
    """Sizes, counts and times. The defaults are those of libp2p's other implementations where these agree."""

    protocol: str = PROTOCOL
    """A network of its own has its own: only peers with the same one meet."""
    k: int = 20
    """Peers of a bucket, of an answer, and those that keep a record."""
    alpha: int = 5
    """Questions of one search under way at a time."""
    beta: int = 3
    """A search that only wants an answer ends when so many closest peers have answered."""
    paths: int = 1
    """Paths of one search that share no peer, ``alpha`` at most. In a simulated network where a fifth of all
    peers lie in league, one path missed a value in every seventh search, five hardly ever, with half as many
    questions more. Where nobody lies they ask hardly more."""
    asked_max: int = 120
    """Peers that one search asks at the most, whatever it is told, and so many it remembers."""
    request_seconds: float = 10.0
    """From opening the stream to the answer."""
    query_seconds: float = 60.0
    """One search; and as long again for telling those that were found."""
    idle_seconds: float = 60.0
    """An inbound stream without a whole question is closed after this long."""
    inbound_max: int = 8
    """Streams of one peer at a time (py-libp2p allows itself 12 in all)."""
    outbound_max: int = 4
    """Streams to one peer at a time; further questions to it wait their turn."""
    requests_per_second: float = 50.0
    """Questions of one peer in the long run; a faster one waits for its answers. A write counts as ten."""
    requests_burst: float = 200.0
    accounts_max: int = 1024
    """Peers whose rate is remembered; the one that was quiet longest is forgotten first."""
    checks_max: int = 8
    """Peers tried at a time before they enter the table."""
    message_bytes_max: int = 64 * 1024
    """A longer message is refused when its length is read."""
    send_bytes_max: int = 16 * 1024
    """What is sent is kept below: rust-libp2p reads no more."""
    addresses_max: int = 16
    """Addresses of one peer in a message, read and written."""
    record_key_bytes_max: int = 1024
    provider_key_bytes_max: int = 80
    value_bytes_max: int = 10 * 1024
    records_max: int = 1024
    """Values kept; beyond, the one whose key is furthest from this peer goes."""
    record_seconds: float = 48 * _HOUR
    """How long a value lasts after it was last put here."""
    republish_seconds: float = 22 * _HOUR
    """How often this peer's own values and provider records are put again."""
    provider_keys_max: int = 1024
    """Keys with providers; beyond, the one furthest from this peer goes."""
    providers_max: int = 20
    """Providers of one key; beyond, the oldest goes."""
    provider_addresses_bytes_max: int = 512
    """Addresses kept of one provider, all together; those beyond are not kept."""
    provider_seconds: float = 48 * _HOUR
    provider_address_seconds: float = 24 * _HOUR
    """How long the addresses of a provider are told with it."""
    refresh_seconds: float = 600.0
    """How often a bucket that was not searched is searched at random, and this peer searches for itself."""
    refresh_bits_max: int = 12
    """Nearer buckets are covered by the search for itself; a random name for them would take long to find."""
    quiet_seconds: float = 1800.0
    """A peer of the table that was not heard of for so long is asked for a sign of life, before its addresses
    are forgotten."""
    failures_max: int = 2
    """Requests in a row that a peer of the table may leave unanswered."""
    group_table_max: int = 3
    """Peers of one /16 of IPv4, or /32 of IPv6, in the table: whoever has one network shall not be most of
    it. Loopback and private addresses are free."""
    group_bucket_max: int = 2
    """Those in one bucket."""
    bootstrap: tuple[str, ...] = ()
    """Multiaddrs with a peer id: dialled at the start, and again while the table is empty."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not (value > 0 or (value == 0 and name in _FROM_ZERO)):
                raise ConfigError(f"{name} cannot be {value}")
