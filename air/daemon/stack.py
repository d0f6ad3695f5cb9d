"""``air stack show`` and ``air interop``: the network layers from the command line. (root)"""

from __future__ import annotations

import importlib.util
import json
import math
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import anyio

from air.base.address import Multiaddr
from air.base.errors import Misuse, Violation
from air.base.groups import first
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.daemon.memory import quieten
from air.node import plugins, presets
from air.node.heap import keep_blocks
from air.node.interop import dial, listen, probe
from air.node.interop_ops import OPERATIONS, Options

__all__ = ["perform"]


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Misuse(message)


def perform(command: str, options: Sequence[str], words: Sequence[str]) -> int:
    """Run ``air stack …`` or ``air interop …``. Returns the exit code."""
    if command == "stack":
        return _stack(options, words)
    action, rest = (words[0] if words else ""), list(words[1:])
    parser = _parser(action)
    if "-h" in options or "--help" in options or parser is None:
        if parser is None and not {"-h", "--help"} & set(options):
            raise Misuse("air interop wants listen, dial ADDRESS or ping ADDRESS")
        print(_OVERVIEW if parser is None else parser.format_help())
        return 0
    try:
        args = parser.parse_args(list(options))
        if len(rest) != (0 if action == "listen" else 1):
            raise Misuse(f"{action} wants {'no more words' if action == 'listen' else 'one address'}")
        made = _options(args, rest[0] if rest else None)
    except Misuse as error:
        raise Misuse(f"{error.message} (air interop {action} --help)") from None
    main = {"listen": listen, "dial": dial, "ping": probe}[action]
    _fill_descriptors()
    keep_blocks()
    quieten()
    settings: dict[str, Any] = {}
    if args.backend == "asyncio":
        settings["use_uvloop"] = importlib.util.find_spec("uvloop") is not None
    try:
        return anyio.run(main, made, backend=args.backend, backend_options=settings)
    except BaseExceptionGroup as group:
        raise first(group) from None


def _fill_descriptors() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed: libuv aborts when a socket gets its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _parser(action: str) -> _Parser | None:
    if action not in ("listen", "dial", "ping"):
        return None
    word = "" if action == "listen" else " ADDRESS"
    parser = _Parser(
        prog=f"air interop {action}",
        usage=f"air interop {action} [options]{word}",
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--backend", choices=("asyncio", "trio"), default="asyncio", help="event loop")
    add("--json", action="store_true", help="one JSON object a line (listen and dial always do)")
    add("--muxer", choices=(*presets.MUXERS, "both"), default="yamux" if action == "listen" else "both")
    add("--security", choices=presets.SECURITY, default=None, help="default: noise, then tls")
    add("--seed", metavar="HEX32", type=_seed, help="64 hex digits: the Ed25519 seed of the identity")
    if action == "listen":
        add("--host", default="127.0.0.1", help="IP address to listen on")
        port = _whole(65_535)
        add("--tcp-port", metavar="N", type=port, default=None, help="0, the default, picks a free one")
        add("--ws-port", metavar="N", type=port, default=None, help="no WebSocket unless given")
    else:
        add(
            "--timeout",
            metavar="MS",
            type=_milliseconds,
            default=30_000.0,
            help="for the dial and for each operation",
        )
    if action == "dial":
        size = _whole(2**63 - 1)
        add("--ops", type=_ops, default="identify,ping", help=f"of {', '.join(OPERATIONS)}")
        add("--bytes", metavar="N", type=size, default=1024 * 1024, help="for each echo")
        add("--up", metavar="N", type=size, default=1024 * 1024, help="bytes that perf sends")
        add("--down", metavar="N", type=size, default=1024 * 1024, help="bytes that perf fetches")
        add(
            "--count",
            metavar="N",
            type=_whole(1_000_000, least=1),
            default=1,
            help="pings, and echo streams at a time",
        )
        add(
            "--mplex-opens",
            metavar="N",
            type=_whole(1_000_000),
            default=0,
            help="streams opened a second on mplex; a stock js-libp2p takes 5, the default",
        )
        add(
            "--key",
            metavar="KEY",
            default="/air/k",
            help="what the operations of the DHT put, get and provide",
        )
        add("--value", metavar="TEXT", default="v", help="what kad-put puts")
        add(
            "--target",
            metavar="PEER",
            type=_peer,
            default=None,
            help="whom find-peer finds; default: KEY if it is a peer id, else the dialled peer",
        )
    if action != "ping":
        add("--dht", choices=("server", "client", "off"), default="off", help="part in the Kademlia DHT")
        add(
            "--bootstrap",
            metavar="MULTIADDR",
            type=_address,
            action="append",
            default=[],
            help="a peer to dial first",
        )
    return parser


# What a word may be. ArgumentTypeError is told with the name of the option.


def _whole(most: int, *, least: int = 0) -> Callable[[str], int]:
    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            raise ArgumentTypeError(f"{word!r} is no whole number") from None
        if not least <= number <= most:
            raise ArgumentTypeError(f"{number} is not between {least} and {most}")
        return number

    return read


def _milliseconds(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"{word!r} is no number of milliseconds above 0")
    return number


def _seed(word: str) -> bytes:
    try:
        seed = bytes.fromhex(word)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ArgumentTypeError("wants 64 hex digits")
    return seed


def _ops(text: str) -> tuple[str, ...]:
    words = tuple(word for word in map(str.strip, text.split(",")) if word)
    for word in words:
        if word not in OPERATIONS:
            raise ArgumentTypeError(f"there is no operation {word!r}; there are {', '.join(OPERATIONS)}")
    return words


def _address(word: str) -> str:
    try:
        return str(Multiaddr(word))
    except Violation as error:
        raise ArgumentTypeError(f"{word!r} is no address: {error}") from None


def _peer(word: str) -> str:
    try:
        return PeerId(word)
    except Violation as error:
        raise ArgumentTypeError(f"{word!r} is no peer id: {error}") from None


def _options(args: Namespace, address: str | None) -> Options:
    given = vars(args)
    listen_on = []
    if "host" in given:
        if args.tcp_port is not None or args.ws_port is None:
            listen_on.append(f"tcp/{args.tcp_port or 0}")
        if args.ws_port is not None:
            listen_on.append(f"tcp/{args.ws_port}/ws")
    try:
        family = "ip6" if ":" in given.get("host", "") else "ip4"
        listening = tuple(_address(f"/{family}/{args.host}/{rest}") for rest in listen_on)
        where = "" if address is None else _address(address)
    except ArgumentTypeError as error:
        raise Misuse(str(error)) from None
    return Options(
        identity=Identity.generate() if args.seed is None else Identity(args.seed),
        muxers=tuple(presets.MUXERS) if args.muxer == "both" else (args.muxer,),
        security=presets.available(("noise", "tls")) if args.security is None else (args.security,),
        listen=listening,
        bootstrap=tuple(given.get("bootstrap", ())),
        address=where,
        ops=given.get("ops", ()),
        echo_bytes=given.get("bytes", 0),
        up_bytes=given.get("up", 0),
        down_bytes=given.get("down", 0),
        count=given.get("count", 1),
        timeout_seconds=given.get("timeout", 30_000.0) / 1000,
        mplex_opens=given.get("mplex_opens", 0),
        dht=given.get("dht", "off"),
        key=given.get("key", ""),
        value=given.get("value", ""),
        target=given.get("target") or "",
        json=args.json,
    )


def _stack(options: Sequence[str], words: Sequence[str]) -> int:
    if {"-h", "--help"} & set(options):
        print("usage: air stack show [--json]    what a node can be made of, with what plug-ins add")
        return 0
    if list(words) != ["show"] or set(options) - {"--json"}:
        raise Misuse("air stack wants show [--json]")
    shown: dict[str, Any] = {
        "transports": {
            "tcp": "/ip4|ip6|dns*/…/tcp/PORT",
            "websocket": "…/tcp/PORT/ws, /wss, /tls/ws",
            "memory": "/memory/N",
        },
        "security": {},
        "muxers": {},
        "services": {},
    }
    for kind, names, make in (
        ("security", presets.SECURITY, presets.security),
        ("muxers", presets.MUXERS, presets.muxer),
    ):
        for name in names:
            try:
                shown[kind][name] = make(name).protocol
            except ImportError:
                continue
    for service in presets.services():
        shown["services"][type(service).__name__.lower()] = ", ".join(sorted(service.handlers))
    plugged = {
        kind: {name: entry.value for name, entry in plugins.find(kind).items()} for kind in plugins.KINDS
    }
    if "--json" in options:
        print(json.dumps(shown | {"plugins": plugged}))
        return 0
    for kind, parts in shown.items():
        print(f"{kind}:")
        for name, what in parts.items():
            print(f"  {name:12}{what}")
    for kind, entries in plugged.items():
        for name, what in entries.items():
            print(f"plug-in {kind}: {name} = {what}")
    return 0


_OVERVIEW: Final = """usage: air interop ping ADDRESS    tell which layer towards a peer fails, and why
       air interop listen          serve ping, identify, echo and perf until stdin closes
       air interop dial ADDRESS    run operations against a peer
air interop ACTION --help tells more."""
