"""A peer on a plain blocking socket: it sends whatever bytes it is given, and reads what comes back."""

from __future__ import annotations

import json
import struct
import time
from typing import Any

from tests.hostile.attack import frame, upgrade

__all__ = ["Peer"]


class Peer:
    def __init__(self, port: int, *, wait_seconds: float = 5.0) -> None:
        self.sock = upgrade("127.0.0.1", port)
        self.sock.settimeout(wait_seconds)
        self.heard: list[dict[str, Any]] = []
        self.pongs: list[bytes] = []
        self.close: tuple[int, str] | None = None
        """Code and reason of the close frame that came; (1006, "") when the stream just ended."""
        self._data = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Raw bytes; that the other end has gone is no error."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def say(self, *messages: object) -> None:
        for message in messages:
            self.send(frame(json.dumps(message).encode()))

    def listen(self) -> bool:
        """Take one frame; False when there will be no more."""
        while (found := self._next()) is None:
            try:
                piece = self.sock.recv(65_536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                self.close = self.close or (1006, "")
                return False
            self._data += piece
        head, body = found
        if head & 0x0F == 8:
            self.close = (struct.unpack("!H", body[:2])[0], body[2:].decode()) if body else (1005, "")
            return False
        if head & 0x0F == 10:
            self.pongs.append(body)
        else:
            parsed = json.loads(body)
            self.heard += parsed if isinstance(parsed, list) else [parsed]
        return True

    def _next(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < max(start, start + size):
            return None
        self._data = data[start + size :]
        return data[0], data[start : start + size]

    def until_done(self) -> None:
        """Everything that was sent before has been worked off then. A pong would come too early."""
        id = f"probe{time.monotonic()}"
        self.say({"#": id, "get": {"#": "probe"}})
        self.answer(id)

    def answer(self, id: str) -> dict[str, Any]:
        """The first answer to a message."""
        while not (found := [message for message in self.heard if message.get("@") == id]):
            assert self.listen(), f"closed with {self.close}"
        return found[0]

    def put(self, soul: str, fields: dict[str, Any], state: float, id: str) -> dict[str, Any]:
        self.say({"#": id, "put": {soul: {"_": {"#": soul, ">": dict.fromkeys(fields, state)}, **fields}}})
        return self.answer(id)

    @property
    def codes(self) -> list[str]:
        """The codes of all errors told so far."""
        return [message["err"].partition(":")[0] for message in self.heard if "err" in message]
