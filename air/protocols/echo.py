"""Echo: bytes come back as they went. For tests and measurements. (shell)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from air.base.errors import Closed, Reset
from air.mux.api import Priority
from air.swarm.api import Host, StreamHandler
from air.swarm.stream import Stream

__all__ = ["PROTOCOL", "Echo"]

PROTOCOL: Final = "/echo/1.0.0"


class Echo:
    """Sends back what comes, half-closes when the opener does."""

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {PROTOCOL: _serve}

    async def run(self, host: Host, *, task_status: Any) -> None:
        task_status.started()


async def _serve(stream: Stream) -> None:
    stream.priority = Priority.BULK
    while True:
        try:
            data = await stream.receive(256 * 1024)
        except Reset:
            raise
        except Closed:
            return
        await stream.send(data)
