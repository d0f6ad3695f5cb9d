"""``air stack show`` and ``air interop``: the network layers from the command line. (root)"""

from __future__ import annotations

import importlib.util
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import anyio

from air.base.errors import AirError, Misuse
from air.base.keys import Identity
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
    args = parser.parse_args(list(options))
    if len(rest) != (0 if action == "listen" else 1):
        raise Misuse(f"air interop {action} wants {'no more words' if action == 'listen' else 'one address'}")
    made = _options(args, rest[0] if rest else "")
    main = {"listen": listen, "dial": dial, "ping": probe}[action]
    keep_blocks()
    quieten()
    settings: dict[str, Any] = {}
    if args.backend == "asyncio":
        settings["use_uvloop"] = importlib.util.find_spec("uvloop") is not None
    try:
        return anyio.run(main, made, backend=args.backend, backend_options=settings)
    except BaseExceptionGroup as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if isinstance(found, AirError | KeyboardInterrupt | OSError):
            raise found from None
        raise


def _parser(action: str) -> _Parser | None:
    if action not in ("listen", "dial", "ping"):
        return None
    word = "" if action == "listen" else " ADDRESS"
    parser = _Parser(
        prog=f"air interop {action}", usage=f"air interop {action} [options]{word}", add_help=False
    )
    add = parser.add_argument
    add("--backend", choices=("asyncio", "trio"), default="asyncio", help="event loop")
    add("--json", action="store_true", help="one JSON object a line (listen and dial always do)")
    add("--muxer", choices=(*presets.MUXERS, "both"), default="yamux" if action == "listen" else "both")
    add("--security", choices=presets.SECURITY, default=None, help="default: noise, then tls")
    add("--seed", metavar="HEX32", default="", help="64 hex digits: the Ed25519 seed of the identity")
    if action == "listen":
        add("--host", default="127.0.0.1", help="IP address to listen on")
        add("--tcp-port", metavar="N", type=int, default=None, help="0, the default, picks a free one")
        add("--ws-port", metavar="N", type=int, default=None, help="no WebSocket unless given")
    else:
        add(
            "--timeout",
            metavar="MS",
            type=float,
            default=30_000.0,
            help="for the dial and for each operation",
        )
    if action == "dial":
        add("--ops", default="identify,ping", help=f"of {', '.join(OPERATIONS)}")
        add("--bytes", metavar="N", type=int, default=1024 * 1024, help="for each echo")
        add("--up", metavar="N", type=int, default=1024 * 1024, help="bytes that perf sends")
        add("--down", metavar="N", type=int, default=1024 * 1024, help="bytes that perf fetches")
        add("--count", metavar="N", type=int, default=1, help="pings, and echo streams at a time")
        add(
            "--mplex-opens",
            metavar="N",
            type=int,
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
            default="",
            help="whom find-peer finds; default: KEY if it is a peer id, else the dialled peer",
        )
    add("--dht", choices=("server", "client", "off"), default="off", help="part in the Kademlia DHT")
    add("--bootstrap", metavar="MULTIADDR", action="append", default=[], help="a peer to dial first")
    return parser


def _options(args: Namespace, address: str) -> Options:
    try:
        identity = Identity(bytes.fromhex(args.seed)) if args.seed else Identity.generate()
    except ValueError:
        raise Misuse("--seed wants 64 hex digits") from None
    get = vars(args).get
    listen_on = []
    if get("tcp_port") is not None or get("ws_port") is None:
        listen_on.append(f"tcp/{get('tcp_port') or 0}")
    if get("ws_port") is not None:
        listen_on.append(f"tcp/{get('ws_port')}/ws")
    host = get("host") or "127.0.0.1"
    ops = tuple(word for word in (get("ops") or "").split(",") if word)
    unknown = [word for word in ops if word not in OPERATIONS]
    if unknown:
        raise Misuse(f"there is no operation {unknown[0]}; there are {', '.join(OPERATIONS)}")
    return Options(
        identity=identity,
        muxers=tuple(presets.MUXERS) if args.muxer == "both" else (args.muxer,),
        security=presets.available(("noise", "tls")) if args.security is None else (args.security,),
        listen=tuple(f"/{'ip6' if ':' in host else 'ip4'}/{host}/{rest}" for rest in listen_on),
        bootstrap=tuple(args.bootstrap),
        address=address,
        ops=ops,
        echo_bytes=get("bytes") or 0,
        up_bytes=get("up") or 0,
        down_bytes=get("down") or 0,
        count=max(1, get("count") or 1),
        timeout_seconds=(get("timeout") or 30_000.0) / 1000,
        mplex_opens=get("mplex_opens") or 0,
        dht=args.dht,
        key=get("key") or "",
        value=get("value") or "",
        target=get("target") or "",
        json=args.json,
    )


def _stack(options: Sequence[str], words: Sequence[str]) -> int:
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
    sys.stdout.flush()
    return 0


_OVERVIEW: Final = """usage: air interop ping ADDRESS    tell which layer towards a peer fails, and why
       air interop listen          serve ping, identify, echo and perf until stdin closes
       air interop dial ADDRESS    run operations against a peer
air interop ACTION --help tells more."""
