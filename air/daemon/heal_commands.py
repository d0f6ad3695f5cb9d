"""The commands about peers that were apart: compare now, and what lost in the meantime. (shell)"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any, Final

from air.base.errors import Misuse
from air.daemon.client import Client
from air.daemon.settings import Settings
from air.daemon.show import show, show_json

__all__ = ["HEAL_COMMANDS", "add_options"]

_PAGE: Final = 1_000
_SYNC_SECONDS: Final = 3600.0
"""A comparison may move a whole graph."""


def add_options(command: str, parser: ArgumentParser) -> None:
    """The options of one of these commands."""
    add = parser.add_argument
    if command == "sync":
        add("--range", metavar="A..B", help="only souls from A up to B (outside); either may be empty")
        add("--dry-run", action="store_true", help="count what differs and move nothing")
    if command == "conflicts":
        add("--soul", metavar="SOUL", help="only those of one node")
        add("--limit", metavar="N", type=int, default=100, help="at most so many, the newest last (100)")


def _sync(client: Client, args: Namespace, _: Settings) -> None:
    query = {"peer": args.soul}
    if args.range is not None:
        low, dots, high = args.range.partition("..")
        if not dots:
            raise Misuse("--range wants A..B, with either end empty for none")
        query |= {name: end for name, end in (("from", low), ("to", high)) if end}
    if args.dry_run:
        query["dry_run"] = "true"
    summary = json.loads(client.call("POST", "/v1/sync", query, seconds=_SYNC_SECONDS))
    if args.json:
        show_json(summary)
        return
    verbs = ("to send", "to receive") if args.dry_run else ("sent", "received")
    show(f"cells {verbs[0]}: {summary['sent']}, {verbs[1]}: {summary['received']}")
    show(f"round trips: {summary['rounds']}, bytes: {summary['bytes_out'] + summary['bytes_in']}")
    if not summary["equal"] and not args.dry_run:
        show("both sides went on writing; what is written while they are linked is told live")


def _conflicts(client: Client, args: Namespace, _: Settings) -> None:
    query = {} if args.soul is None else {"soul": args.soul}
    found: list[Mapping[str, Any]] = []
    while True:
        page = {**query, "after": str(found[-1]["id"] if found else 0), "limit": str(_PAGE)}
        more = json.loads(client.call("GET", "/v1/conflicts", page))["conflicts"]
        found = [*found, *more][-args.limit :]
        if len(more) < _PAGE:
            break
    if args.json:
        show_json(found)
        return
    for one in found:
        lost, won = one["lost"], one["won"]
        show(f"{one['id']} {json.dumps(one['soul'])} {json.dumps(one['key'])}")
        show(f"    lost {_side(lost)}")
        show(f"    won  {_side(won)}")


def _history(client: Client, args: Namespace, _: Settings) -> None:
    query = {"soul": args.soul} | ({} if args.key is None else {"key": args.key})
    edits = json.loads(client.call("GET", "/v1/history", query))["edits"]
    if args.json:
        show_json(edits)
        return
    for edit in edits:
        what = "stands" if edit["stands"] else f"lost in conflict {edit['conflict']}"
        show(f"{json.dumps(edit['key'])} {_side(edit)} {what}")


def _undo(client: Client, args: Namespace, _: Settings) -> None:
    if not (args.soul.isascii() and args.soul.isdigit()):
        raise Misuse("air undo wants the number of a conflict (air conflicts shows them)")
    receipt = json.loads(client.call("POST", "/v1/undo", {"conflict": args.soul}))
    if args.json:
        show_json(receipt)


def _side(version: Mapping[str, Any]) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(version["state"] / 1000))
    writer = version["writer"] or "somebody"
    return f"{json.dumps(version['value'], ensure_ascii=False)} by {writer} at {stamp}Z"


HEAL_COMMANDS: Final = {"sync": _sync, "conflicts": _conflicts, "history": _history, "undo": _undo}
