"""mplex as a Muxer. (shell)"""

from __future__ import annotations

from dataclasses import dataclass, field

from air.base.env import Env
from air.mux.conn import ConnConfig, CoreConn
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.core import MplexCore
from air.transport.api import ByteStream

__all__ = ["PROTOCOL", "Mplex"]

PROTOCOL = "/mplex/6.7.0"


@dataclass(frozen=True, slots=True)
class Mplex:
    """Streams without flow control: one slow reader holds up the whole connection for a while."""

    config: MplexConfig = field(default_factory=MplexConfig)
    conn_config: ConnConfig = field(default_factory=ConnConfig)
    protocol: str = PROTOCOL

    def wrap(self, conn: ByteStream, /, *, dialer: bool, env: Env) -> CoreConn:
        core = MplexCore(self.config, now=env.clock.now())
        return CoreConn(conn, core, env, self.conn_config, self.config.send_buffer_bytes)
