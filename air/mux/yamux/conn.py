"""yamux as a Muxer. (shell)"""

from __future__ import annotations

from dataclasses import dataclass, field

from air.base.env import Env
from air.mux.conn import ConnConfig, CoreConn
from air.mux.yamux.config import YamuxConfig
from air.mux.yamux.core import YamuxCore
from air.transport.api import ByteStream

__all__ = ["PROTOCOL", "Yamux"]

PROTOCOL = "/yamux/1.0.0"


@dataclass(frozen=True, slots=True)
class Yamux:
    """Streams with flow control, priorities and keep-alive."""

    config: YamuxConfig = field(default_factory=YamuxConfig)
    conn_config: ConnConfig = field(default_factory=ConnConfig)
    protocol: str = PROTOCOL

    def wrap(self, conn: ByteStream, /, *, dialer: bool, env: Env) -> CoreConn:
        core = YamuxCore(self.config, dialer=dialer, now=env.clock.now())
        return CoreConn(conn, core, env, self.conn_config, self.config.send_buffer_bytes)
