"""Everything that can be set, with its default, its range and its meaning. (core)

Each key is a field of a section; the text below it is its documentation, which ``air config
--template`` and ``docs/configuration.md`` repeat. Its helper (``whole``, ``size``, ``choice`` …) says
what it may hold. A new key needs those two things and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from air.base.errors import ConfigError

__all__ = [
    "NATIVE_LISTEN",
    "SECTIONS",
    "AdminConfig",
    "Config",
    "GunConfig",
    "IdentityConfig",
    "LogConfig",
    "NativeConfig",
    "NodeConfig",
    "Rule",
    "StoreConfig",
    "default_data",
    "keys",
    "size_text",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

NATIVE_LISTEN: Final = "/ip4/127.0.0.1/tcp/8764"
"""Where the native wire is served when nobody says otherwise."""

_UNITS: Final = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": KIB, "mib": MIB, "gib": GIB}
_SIZE: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))? ?([a-z]*)", re.ASCII | re.IGNORECASE)
_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a key may hold, and how it is read from TOML or from text."""

    kind: Literal["whole", "size", "number", "switch", "choice", "text", "texts", "path"]
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    required: bool = False
    """For a path: it must not be empty."""

    @property
    def expectation(self) -> str:
        """What would have been right, in words."""
        match self.kind:
            case "whole":
                return f"a whole number from {self.low} to {self.high}"
            case "size":
                low, high = size_text(int(self.low)), size_text(int(self.high))
                return f'a number of bytes or text such as "64 MiB", from {low} to {high}'
            case "number":
                return f"a number from {self.low:g} to {self.high:g}"
            case "switch":
                return "true or false"
            case "choice":
                return "one of " + ", ".join(f'"{word}"' for word in self.choices)
            case "text":
                return "text that is not empty"
            case "texts":
                return "a list of texts"
            case "path":
                return "a path" if self.required else 'a path, or "" for none'

    def read(self, raw: object, folder: Path | None = None) -> object:
        """The value meant by ``raw``, as TOML has it. Raises ValueError when it breaks the rule.

        A relative path is taken from ``folder`` when that is given.
        """
        kind = type(raw)
        match self.kind:
            case "whole" if kind is int:
                return self._within(raw)
            case "number" if kind is int or kind is float:
                return float(self._within(raw))
            case "size" if kind is int:
                return self._within(raw)
            case "size" if isinstance(raw, str):
                return self._within(_size(raw))
            case "switch" if kind is bool:
                return raw
            case "choice" if raw in self.choices:
                return raw
            case "text" if isinstance(raw, str) and raw and "\0" not in raw:
                return raw
            case "texts" if isinstance(raw, list) and all(isinstance(one, str) and one for one in raw):
                return tuple(raw)
            case "path" if isinstance(raw, str) and "\0" not in raw and (raw or not self.required):
                return _path(raw, folder) if raw else None
        raise ValueError(self.expectation)

    def read_text(self, raw: str, folder: Path | None = None) -> object:
        """The value meant by text from the environment or the command line. Raises ValueError."""
        match self.kind:
            case "whole":
                return self.read(int(raw), folder)
            case "number":
                return self.read(float(raw), folder)
            case "switch":
                return self.read(_TRUTH.get(raw.lower(), raw))
            case "texts":
                return self.read([part.strip() for part in raw.split(",") if part.strip()])
        return self.read(raw, folder)

    def _within(self, value: Any) -> Any:
        if not self.low <= value <= self.high:  # false for NaN as well
            raise ValueError(self.expectation)
        return value


def _size(raw: str) -> int:
    found = _SIZE.fullmatch(raw.strip())
    if found is None or found[3].lower() not in _UNITS:
        raise ValueError(raw)
    whole, fraction, unit = found[1], found[2] or "", _UNITS[found[3].lower()]
    count: int = int(whole + fraction) * unit // 10 ** len(fraction)
    return count


def size_text(count: int) -> str:
    """A number of bytes with the largest binary unit that divides it."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} B"


def _path(raw: str, folder: Path | None) -> Path:
    path = Path(os.path.expanduser(raw))
    return Path(os.path.abspath(folder / path if folder is not None else path))


def _key(rule: Rule, default: object) -> Any:
    return field(default=default, metadata={"rule": rule})


def whole(default: int, low: int = 0, high: int = 2**31 - 1) -> Any:
    """A whole number."""
    return _key(Rule("whole", low, high), default)


def size(default: int, low: int = 0, high: int = 1024 * GIB) -> Any:
    """A number of bytes, or text such as ``"64 MiB"``."""
    return _key(Rule("size", low, high), default)


def number(default: float, low: float = 0.0, high: float = 86_400.0) -> Any:
    """A number with a fraction; the key's name ends in its unit."""
    return _key(Rule("number", low, high), default)


def switch(default: bool) -> Any:
    return _key(Rule("switch"), default)


def choice(default: str, *others: str) -> Any:
    """One of a few words."""
    return _key(Rule("choice", choices=(default, *others)), default)


def text(default: str) -> Any:
    """Text that is not empty."""
    return _key(Rule("text"), default)


def texts(*default: str) -> Any:
    """A list of texts."""
    return _key(Rule("texts"), default)


PATH: Final[Mapping[str, Rule]] = {"rule": Rule("path")}
"""For ``field(default=None, metadata=PATH)``: a file or folder, or none (``""`` in a file)."""


def default_data() -> Path:
    """``$XDG_DATA_HOME/air``, where the daemon keeps its data unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification tells to ignore relative paths.
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "air"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The node as a whole."""

    data: Path = field(default_factory=default_data, metadata={"rule": Rule("path", required=True)})
    """Folder of everything the daemon keeps. It is made with mode 0700 when it is missing."""
    backend: str = choice("asyncio", "trio")
    """Event loop. asyncio uses uvloop when that is installed."""
    stop_seconds: float = number(10.0, low=0.1, high=600.0)
    """How long a stopping daemon may take to say goodbye to its peers; then it is cut off."""


@dataclass(frozen=True, slots=True)
class GunConfig:
    """The GUN wire: JSON over WebSocket, as gun.js speaks it."""

    host: str = text("127.0.0.1")
    """Address to listen on. ``0.0.0.0`` or ``::`` is every interface."""
    port: int = whole(8765, high=65535)
    """Port of the WebSocket ``/gun``; 0 picks a free one."""
    static: Path | None = field(default=None, metadata=PATH)
    """Folder served to browsers beside ``/gun``, for instance with the page of an app."""
    tls_cert: Path | None = field(default=None, metadata=PATH)
    """Certificate chain (PEM) for ``wss://``; needs ``tls_key``."""
    tls_key: Path | None = field(default=None, metadata=PATH)
    """Private key (PEM) of ``tls_cert``; a file of mode 0600."""
    origins: tuple[str, ...] = texts("*")
    """Web origins whose pages may connect, such as ``https://app.example``; ``*`` is any, as GUN does it."""
    peers: tuple[str, ...] = texts()
    """Relays to stay connected to, such as ``wss://relay.example/gun``."""
    peer_ca: Path | None = field(default=None, metadata=PATH)
    """Certificate authorities (PEM) that ``wss://`` peers must be signed by; none: those of this machine."""
    links_max: int = whole(16_384, low=1)
    """Links open at a time; further ones wait until one ends."""
    links_per_address_max: int = whole(16_384, low=1)
    """Links open at a time from one address."""
    frame_bytes_max: int = size(64 * MIB, low=64 * KIB)
    """Longest message that is read; a longer one closes its link."""
    queue_bytes_max: int = size(64 * MIB, low=64 * KIB)
    """Most that waits to be sent on one link; a peer that reads more slowly is cut."""
    subscriptions_max: int = whole(100_000, low=1)
    """Nodes and fields one link may ask to be kept told about."""
    handshake_seconds: float = number(10.0, low=0.1, high=300.0)
    """How long a new connection may take to become a link."""
    handshakes_max: int = whole(1_024, low=1)
    """Connections that may be about to become a link; one more cuts the oldest of them."""
    keepalive_seconds: float = number(20.0, low=1.0, high=3600.0)
    """Between two signs of life on a link that has nothing to say."""
    close_seconds: float = number(1.5, low=0.1, high=60.0)
    """How long a link that is closed may take to answer the goodbye."""
    insist_seconds: float = number(1.5, high=60.0)
    """How long a link that goes beyond one of the following limits is only slowed down before it is cut."""
    errors_max: int = whole(100, low=1)
    """Malformed or refused messages of one link at once; more end it."""
    errors_per_second: float = number(1.0, low=0.001)
    """Such messages that are forgiven."""
    waste_bytes_max: int = size(8 * MIB, low=KIB)
    """Bytes of one link at once of messages that are refused or mean nothing."""
    waste_bytes_per_second: float = number(256 * KIB, low=1.0, high=1e12)
    """Such bytes that are forgiven."""
    idle_messages_max: int = whole(5_000, low=1)
    """Messages of one link at once that mean nothing."""
    idle_messages_per_second: float = number(100.0, low=0.001, high=1e9)
    """Such messages that are forgiven."""
    repeats_max: int = whole(5_000, low=1)
    """Messages at once that the same link has sent before."""
    repeats_per_second: float = number(100.0, low=0.001, high=1e9)
    """Such messages that are forgiven."""
    scans_max: int = whole(128, low=1)
    """Questions of one link at once for all nodes whose name begins alike; one that does not wait for the
    answers to those before it counts for eight."""
    scans_per_second: float = number(4.0, low=0.001, high=1e9)
    """Such questions that are forgiven."""
    reads_burst: int = whole(20_000, low=1)
    """Reads from disk of one link at once; beyond them it is slowed down, and never cut for that."""
    reads_per_second: float = number(5_000.0, low=0.001, high=1e9)
    """Reads from disk of one link in the long run."""
    reads_max: int = whole(64, low=1)
    """Reads of one link that may wait for the disk."""
    reads_busy_max: int = whole(24, low=1)
    """The same while somebody writes."""
    unread_seconds: float = number(1.5, low=0.1, high=60.0)
    """A link that takes nothing for twice this time, while much waits for it and it asks for more, is cut."""


@dataclass(frozen=True, slots=True)
class NativeConfig:
    """The native wire: libp2p streams between Air peers."""

    listen: tuple[str, ...] = texts(NATIVE_LISTEN)
    """Multiaddrs to listen on, such as ``/ip4/0.0.0.0/tcp/8764`` or ``/ip4/0.0.0.0/tcp/8763/ws``; none: not
    at all. ``/tcp/0`` picks a free port. When the built-in one is taken, a free one is used and logged."""
    peers: tuple[str, ...] = texts()
    """Peers to stay linked to: multiaddrs, with ``/p2p/…`` at the end when nobody else will do."""
    everything: bool = switch(True)
    """Hold all that peers hold: with each peer that does so too, everything is shared and compared. False: a
    peer is asked for what is asked for here."""
    compare_seconds: float = number(3600.0, low=0.0, high=86_400.0 * 30)
    """How often to compare everything with each such peer beside when a link begins; 0: never."""
    heartbeat_seconds: float = number(5.0, low=0.05, high=3600.0)
    """Between two signs of life on a link that has nothing to say."""
    silent_seconds: float = number(15.0, low=0.2, high=3600.0)
    """A link on which nothing is heard for so long is given up and made anew."""
    retry_seconds: float = number(2.0, low=0.05, high=3600.0)
    """Longest wait between two attempts to reach a peer, so that one who is back is soon found."""
    missing_seconds: float = number(10.0, low=0.1, high=86_400.0)
    """How long a peer may be away before it is missing. When half of them are, health and metrics tell of a
    split."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the graph is kept."""

    engine: str = choice("sqlite", "memory")
    """``sqlite`` keeps data in the data folder; ``memory`` forgets everything at the end."""
    durability: str = choice("group", "sync", "memory")
    """When a put is acknowledged. ``group``: after an fsync shared with the puts of the same moment.
    ``sync``: after an fsync of its own. ``memory``: at once; a power cut may lose the last seconds."""
    commit_window_ms: float = number(10.0, high=1000.0)
    """Longest that a busy store collects puts for one fsync, in milliseconds. An idle one never waits."""
    cache_bytes: int = size(64 * MIB)
    """Memory for nodes read or written lately."""
    page_cache_bytes: int = size(32 * MIB, low=MIB)
    """Memory for pages of the file; it fills with whatever is read and written."""
    memory_bytes: int = size(256 * MIB, low=MIB)
    """Most that the engine ``memory`` holds; what was used least is dropped beyond it."""
    key_file: Path | None = field(default=None, metadata=PATH)
    """File of mode 0600 with the key that encrypts the data at rest; none: not encrypted."""


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The HTTP interface for the operator and the command line."""

    host: str = text("127.0.0.1")
    """Address to listen on. One that others can reach needs ``allow_remote``."""
    port: int = whole(8766, high=65535)
    """Port; 0 picks a free one."""
    allow_remote: bool = switch(False)
    """Permit a ``host`` that is not loopback. The interface has no TLS of its own: put it behind a proxy."""
    names: tuple[str, ...] = texts()
    """Further host names that requests may be addressed to, such as that of a proxy in front."""
    token_file: Path | None = field(default=None, metadata=PATH)
    """File of mode 0600 with the bearer token, made when missing; none: ``admin.token`` in ``node.data``."""
    body_bytes_max: int = size(16 * MIB, low=KIB)
    """Longest request body."""
    body_seconds: float = number(30.0, low=0.1, high=3600.0)
    """How long a request body may take to arrive."""
    unread_seconds: float = number(5.0, low=0.1, high=600.0)
    """A client that leaves an answer unread for so long is cut (where the kernel has TCP_USER_TIMEOUT)."""
    fields_max: int = whole(10_000, low=1)
    """Fields in one put."""
    watches_max: int = whole(256, low=1)
    """Watches open at a time."""
    heartbeat_seconds: float = number(15.0, low=0.05, high=3600.0)
    """Between two signs of life on a watch that has nothing to say."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What the daemon writes on standard error."""

    level: str = choice("info", "debug", "warning", "error")
    """The least important kind of message that is written."""
    format: str = choice("text", "json")
    """``text`` for people, ``json`` for programs: one object a line."""
    burst: int = whole(20, low=1)
    """Messages of one code in a row; further ones are counted and left out."""
    burst_seconds: float = number(10.0, low=0.1)
    """Time after which a code may fill its burst again."""


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """Who this peer is."""

    key_file: Path | None = field(default=None, metadata=PATH)
    """File of mode 0600 with the private key, made when missing; none: ``identity.key`` in ``node.data``."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one daemon. Raises ConfigError when settings contradict each other."""

    node: NodeConfig = field(default_factory=NodeConfig)
    gun: GunConfig = field(default_factory=GunConfig)
    native: NativeConfig = field(default_factory=NativeConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    log: LogConfig = field(default_factory=LogConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)

    def __post_init__(self) -> None:
        if (self.gun.tls_cert is None) != (self.gun.tls_key is None):
            raise ConfigError("gun.tls_cert and gun.tls_key need each other", code="config.contradiction")

    @property
    def identity_path(self) -> Path:
        """The file with the private key."""
        return self.identity.key_file or self.node.data / "identity.key"

    @property
    def token_path(self) -> Path:
        """The file with the token of the admin interface."""
        return self.admin.token_file or self.node.data / "admin.token"


SECTIONS: Final[dict[str, type[Any]]] = {
    "node": NodeConfig,
    "gun": GunConfig,
    "native": NativeConfig,
    "store": StoreConfig,
    "admin": AdminConfig,
    "log": LogConfig,
    "identity": IdentityConfig,
}


def keys() -> Iterator[tuple[str, Field[Any], Rule]]:
    """Every key as (``section.name``, its dataclass field, its rule), in the order of this file."""
    for section, kind in SECTIONS.items():
        for entry in fields(kind):
            yield f"{section}.{entry.name}", entry, entry.metadata["rule"]
