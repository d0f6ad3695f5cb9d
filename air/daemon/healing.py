"""The part of the admin interface that is about peers which were apart. (shell)

``docs/admin-api.md`` describes it for its users.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from air.base.errors import Violation
from air.daemon.ports import Conflict, Edit, Relay, Version
from air.daemon.query import flag_of, limit_of, read_query, soul_of
from air.model.value import number_text, text_json, value_text

__all__ = ["healing_routes"]


def healing_routes(relay: Relay) -> list[Route]:
    """``/v1/sync``, ``/v1/conflicts``, ``/v1/history`` and ``/v1/undo``."""
    healing = _Healing(relay)
    return [
        Route("/v1/sync", healing.sync, methods=["POST"]),
        Route("/v1/conflicts", healing.conflicts),
        Route("/v1/history", healing.history),
        Route("/v1/undo", healing.undo, methods=["POST"]),
    ]


class _Healing:
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def sync(self, request: Request) -> Response:
        query = read_query(request, "peer", "from", "to", "dry_run")
        if not query.get("peer"):
            raise Violation("name the peer: ?peer=… with its id or multiaddr", code="admin.bad-query")
        summary = await self._relay.compare(
            query["peer"], query.get("from"), query.get("to"), dry_run=flag_of(query, "dry_run")
        )
        return _answer(json.dumps(asdict(summary)))

    async def conflicts(self, request: Request) -> Response:
        query = read_query(request, "after", "limit", "soul", "key")
        if "key" in query:
            soul_of(query)
        found = await self._relay.journal.conflicts(
            _after(query), limit_of(query) or 1_000, soul=query.get("soul"), key=query.get("key")
        )
        return _answer(f'{{"conflicts":[{_joined(map(_conflict, found))}]}}')

    async def history(self, request: Request) -> Response:
        query = read_query(request, "soul", "key")
        soul = soul_of(query)
        edits = await self._relay.journal.history(soul, query.get("key"))
        return _answer(f'{{"soul":{text_json(soul)},"edits":[{_joined(map(_edit, edits))}]}}')

    async def undo(self, request: Request) -> Response:
        query = read_query(request, "conflict")
        number = query.get("conflict", "")
        if not (number.isascii() and number.isdigit() and len(number) <= 18):
            raise Violation("name the conflict by its number: ?conflict=…", code="admin.bad-query")
        receipt = await self._relay.journal.undo(int(number))
        return _answer(f'{{"conflict":{number},"state":{number_text(receipt.state)}}}')


def _after(query: Mapping[str, str]) -> int:
    raw = query.get("after", "0")
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 18):
        raise Violation("after is the number of a conflict", code="admin.bad-query")
    return int(raw)


def _joined(parts: Iterable[str]) -> str:
    return ",".join(parts)


def _version(version: Version) -> str:
    writer = version.mark[0][0] if version.mark else ""
    return (
        f'{{"value":{value_text(version.value)},"state":{number_text(version.state)},'
        f'"writer":{text_json(writer)}}}'
    )


def _conflict(one: Conflict) -> str:
    return (
        f'{{"id":{one.id},"soul":{text_json(one.soul)},"key":{text_json(one.key)},'
        f'"lost":{_version(one.lost)},"won":{_version(one.won)},"at":{number_text(one.at)}}}'
    )


def _edit(edit: Edit) -> str:
    conflict = "null" if edit.conflict is None else str(edit.conflict)
    noticed = "null" if edit.noticed is None else number_text(edit.noticed)
    return (
        f'{{"key":{text_json(edit.key)},"value":{value_text(edit.value)},"state":{number_text(edit.state)},'
        f'"writer":{text_json(edit.writer)},"stands":{json.dumps(edit.stands)},'
        f'"conflict":{conflict},"noticed":{noticed}}}'
    )


def _answer(body: str) -> Response:
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
