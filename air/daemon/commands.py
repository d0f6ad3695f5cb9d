"""The commands that ask a running daemon. (shell)"""

from __future__ import annotations

import json
import re
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, Final

from air.base.errors import AirError, Misuse
from air.daemon.client import Client, connect
from air.daemon.datadir import is_held
from air.daemon.heal_commands import HEAL_COMMANDS
from air.daemon.settings import Settings
from air.daemon.show import show, show_json

__all__ = ["COMMANDS", "assignment", "perform"]

_POLL_SECONDS: Final = 0.02
_STOP_SECONDS: Final = 10.0
_METRIC: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def assignment(text: str) -> tuple[str, object]:
    """``key=value``: the value is JSON when it can be read as JSON, else text. Raises Misuse."""
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise Misuse(f"{text!r} is no assignment: write key=value")
    try:
        return key, json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return key, raw


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _put(client: Client, args: Namespace, _: Settings) -> None:
    fields = dict(assignment(one) for one in args.fields)
    receipt = json.loads(client.call("PUT", "/v1/node", {"soul": args.soul}, fields))
    if args.json:
        show_json(receipt)


def _get(client: Client, args: Namespace, _: Settings) -> None:
    query = {"soul": args.soul}
    for name, value in (
        ("key", args.key),
        ("prefix", args.prefix),
        ("from", args.start),
        ("to", args.end),
        ("limit", None if args.limit is None else str(args.limit)),
        ("reverse", "true" if args.reverse else None),
    ):
        if value is not None:
            query[name] = value
    answer = json.loads(client.call("GET", "/v1/node", query))
    if "error" in answer:
        raise AirError(answer["error"]["message"], code=answer["error"]["code"])
    fields = answer["fields"] if args.states else {k: v["value"] for k, v in answer["fields"].items()}
    if args.key is not None:
        value = fields[args.key]
        if args.json or not isinstance(value, str):
            show_json(value)
        else:
            show(value)
    elif args.json:
        show_json(fields)
    else:
        for key, value in fields.items():
            _show_field(key, value)


def _show_field(key: str, value: object) -> None:
    # The key is quoted only when it would not be read back as it is.
    name = key if key.isprintable() and key and ": " not in key and key[0] != '"' else json.dumps(key)
    text = json.dumps(value, ensure_ascii=False)
    show(f"{name}: {text}")


def _watch(client: Client, args: Namespace, _: Settings) -> None:
    query = {"soul": args.soul} | ({} if args.key is None else {"key": args.key})
    for change in client.lines("/v1/watch", query):
        if args.json:
            show_json(change)
        else:
            _show_field(change["key"], change["value"])
    raise AirError("the daemon has ended the watch", code="daemon.gone")


def _peers(client: Client, args: Namespace, _: Settings) -> None:
    peers = json.loads(client.call("GET", "/v1/peers"))["peers"]
    if args.json:
        show_json(peers)
        return
    for link in peers:
        counts = f"in {link['messages_in']} out {link['messages_out']}"
        since = f"{link['opened_seconds']:.0f} s"
        show(f"{link['role']} {link['address']} {link['peer'] or '-'} {since} {counts}")


def _id(client: Client, args: Namespace, _: Settings) -> None:
    info = json.loads(client.call("GET", "/v1/id"))
    if args.json:
        show_json(info)
    else:
        show(info["peer"])


def _health(client: Client, args: Namespace, _: Settings) -> None:
    health = json.loads(client.call("GET", "/health", accept=(200, 503)))
    if args.json:
        show_json(health)
    else:
        for name, value in health.items():
            show(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    if health.get("status") != "ok":
        raise AirError(f"the daemon is {health.get('status')}", code="daemon.unwell")


def _metrics(client: Client, args: Namespace, _: Settings) -> None:
    text = client.call("GET", "/metrics").decode()
    if args.json:
        show_json(_parsed(text))
    else:
        show(text.rstrip())


def _parsed(text: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for line in text.splitlines():
        metric = _METRIC.fullmatch(line)
        if metric is not None:
            labels = dict(_LABEL.findall(metric[2] or ""))
            found.append({"name": metric[1], "labels": labels, "value": float(metric[3])})
    return found


def _stop(client: Client, args: Namespace, settings: Settings) -> None:
    client.call("POST", "/v1/stop")
    folder = settings.config.node.data
    # With --api the daemon's folder may be on another machine: then asking is all we can do.
    deadline = time.monotonic() + settings.config.node.stop_seconds + _STOP_SECONDS
    while args.api is None and is_held(folder):
        if time.monotonic() > deadline:
            raise AirError("the daemon is still stopping", code="daemon.stopping")
        time.sleep(_POLL_SECONDS)
    if args.json:
        show_json({"stopped": args.api is None})


COMMANDS: Final[Mapping[str, Callable[[Client, Namespace, Settings], None]]] = {
    "put": _put,
    "get": _get,
    "watch": _watch,
    "peers": _peers,
    "id": _id,
    "health": _health,
    "metrics": _metrics,
    "stop": _stop,
    **HEAL_COMMANDS,
}


def perform(command: str, args: Namespace, settings: Settings) -> None:
    """Run one command against its daemon. Raises AirError."""
    COMMANDS[command](connect(settings.config, args.api, args.token_file), args, settings)
