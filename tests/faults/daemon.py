"""A real daemon to kill and starve, and clients that keep count."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio

from air.transport.websocket import WebSocketConn, dial_websocket

__all__ = ["Client", "Daemon", "Found", "frame"]

Found = dict[tuple[str, str], tuple[Any, float]]


class Daemon:
    """One process over one data folder. ``ready_seconds``: from its start to its open port."""

    def __init__(self, data: Path, *options: str) -> None:
        started = time.monotonic()
        self.data = data
        self.process = self.spawn(data, *options)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the daemon did not start"
        self.ready_seconds = time.monotonic() - started
        info = json.loads(line)
        self.url: str = info["gun"][0]
        self.admin: str = info["admin"]

    @staticmethod
    def spawn(data: Path, *options: str) -> subprocess.Popen[bytes]:
        """The process alone, not waited for."""
        given = ["--json", "--data", str(data), "--port", "0", "--admin", "127.0.0.1:0", *options]
        return subprocess.Popen(
            [sys.executable, "-m", "air", "run", *given], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def health(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and content of the health page."""
        status, body = self._get("/health")
        return status, json.loads(body)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self._get("/metrics")[1].decode()
        values = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return sum(float(value) for key, _, value in values if key.partition("{")[0] == name)

    def _get(self, path: str) -> tuple[int, bytes]:
        token = next(file for file in self.data.iterdir() if "token" in file.name).read_text().strip()
        request = urllib.request.Request(self.admin + path, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


def frame(id: str, soul: str, fields: dict[str, Any], state: float) -> bytes:
    """A put as it goes over the wire."""
    node = {"_": {"#": soul, ">": dict.fromkeys(fields, state)}, **fields}
    return json.dumps({"#": id, "put": {soul: node}}).encode()


class Client:
    """A GUN client for batches."""

    def __init__(self, conn: WebSocketConn) -> None:
        self.conn = conn
        self._count = 0

    @classmethod
    async def dial(cls, url: str) -> Client:
        return cls(await dial_websocket(url))

    async def messages(self) -> list[dict[str, Any]]:
        """What has come, at least one frame of it."""
        out: list[dict[str, Any]] = []
        for text in await self.conn.receive():
            parsed = json.loads(text)
            out += parsed if isinstance(parsed, list) else [parsed]
        return out

    async def put(self, soul: str, fields: dict[str, Any], state: float) -> dict[str, Any]:
        """Write, and return the ack."""
        self._count += 1
        id = f"p{self._count}-{state}"
        await self.conn.send([frame(id, soul, fields, state)])
        with anyio.fail_after(20):
            while True:
                for message in await self.messages():
                    if message.get("@") == id:
                        return message

    async def read(self, souls: Iterable[str]) -> Found:
        """Everything the daemon says these nodes hold."""
        found: Found = {}
        left = list(souls)
        while left:
            waiting: dict[str, str] = {}
            for soul in left[:200]:
                self._count += 1
                waiting[f"g{self._count}"] = soul
            del left[:200]
            await self.conn.send(
                [json.dumps({"#": id, "get": {"#": soul}}).encode() for id, soul in waiting.items()]
            )
            with anyio.fail_after(30):
                while waiting:
                    for message in await self.messages():
                        if message.get("@") not in waiting:
                            continue
                        assert "err" not in message or not message["err"], message
                        for soul, node in (message.get("put") or {}).items():
                            for key, state in node["_"][">"].items():
                                found[soul, key] = (node[key], state)
                        if "%" not in message:
                            del waiting[message["@"]]
        return found

    async def aclose(self) -> None:
        await self.conn.aclose()
