"""A private network below a connection. (shell)"""

from __future__ import annotations

import os

from air.base.env import Env
from air.base.keys import read_secret
from air.security.psk import NONCE_BYTES, PnetCore, PreSharedKey
from air.transport.api import ByteStream

__all__ = ["PnetStream", "load_key", "protect"]


def load_key(path: str | os.PathLike[str]) -> PreSharedKey:
    """Read a key file. Raises ConfigError: as :func:`read_secret` does, and ``pnet.bad-key``."""
    return PreSharedKey.parse(read_secret(path))


def protect(stream: ByteStream, key: PreSharedKey, env: Env) -> PnetStream:
    """The stream as members of the network see it. It goes below multistream and security, on both sides."""
    return PnetStream(stream, PnetCore(key, env.entropy.bits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")))


class PnetStream:
    """A ByteStream inside a ByteStream. Its nonce leaves together with the first bytes."""

    __slots__ = ("_core", "inner")

    def __init__(self, inner: ByteStream, core: PnetCore) -> None:
        self.inner = inner
        self._core = core

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        while True:
            data = self._core.receive(await self.inner.receive(max_bytes))
            if data:
                return data

    async def send(self, data: bytes, /) -> None:
        if data:
            await self.inner.send(self._core.seal(data))

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()
