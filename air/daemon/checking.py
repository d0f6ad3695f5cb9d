"""The part of the admin interface that checks a store in use. (shell)

``docs/admin-api.md`` describes it for its users.
"""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from air.base.errors import LimitReached, Misuse
from air.daemon.ports import Relay
from air.daemon.query import read_query
from air.daemon.verify import as_json
from air.node.check import check_running

__all__ = ["checking_routes"]


def checking_routes(relay: Relay) -> list[Route]:
    """``/v1/verify``."""
    return [Route("/v1/verify", _Checking(relay).verify, methods=["POST"])]


class _Checking:
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._busy = False

    async def verify(self, request: Request) -> Response:
        read_query(request)
        if self._relay.data is None:
            raise Misuse('the engine "memory" keeps nothing that could be checked', code="store.none")
        if self._busy:
            raise LimitReached("the store is being checked already", code="admin.too-many-checks")
        self._busy = True
        try:
            found = await check_running(self._relay.hub)
        finally:
            self._busy = False
        return Response(json.dumps(as_json(found)), media_type="application/json")
