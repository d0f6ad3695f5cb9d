"""Unmodified gun.js clients in Node as async context managers. (shell)

The driver inside Node is gun_client.cjs. The relays to connect clients to come from relays.py.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import anyio
from anyio import move_on_after
from anyio.abc import Process

from tests.interop.children import DEADLINE_SECONDS, NodeChild, running, start_node
from tests.interop.relays import AirDaemon, Relay, StockRelay

__all__ = ["MISSING", "AirDaemon", "GunClient", "GunPath", "Listener", "Relay", "Seen", "StockRelay"]

GunPath = Sequence["str | Mapping[str, Any]"]
"""Steps of a chain: text or lex for get, {"map": lex or None} for map, {"user": pub or None} for user."""


class _Missing:
    """JavaScript's undefined, which gun.js hands out for what nobody has."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Seen:
    """One call of a gun.js callback: what the program saw."""

    key: str | None
    value: Any
    """The value, a node as a dict without its metadata, or MISSING for undefined."""
    soul: str | None = None
    states: Mapping[str, float] = field(default_factory=dict)
    ms: float = 0.0
    """For once: milliseconds from the call to the callback, by the client's clock."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        return cls(
            key=raw.get("key"),
            value=MISSING if raw.get("missing") else raw.get("value"),
            soul=raw.get("soul"),
            states=raw.get("states") or {},
            ms=raw.get("ms", 0.0),
        )


class Listener:
    """The calls of one gun.js listener, oldest first."""

    def __init__(self, client: GunClient, number: int) -> None:
        self._client = client
        self._number = number
        self.seen: list[Seen] = []

    @property
    def values(self) -> list[Any]:
        return [seen.value for seen in self.seen]

    @property
    def latest(self) -> dict[str | None, Any]:
        """The last value of each key."""
        return {seen.key: seen.value for seen in self.seen}

    async def until(
        self, condition: Callable[[Listener], bool], seconds: float = DEADLINE_SECONDS, *, what: str = ""
    ) -> None:
        """Wait until the condition holds over what was seen."""
        try:
            await self._client.until(lambda: condition(self), seconds, what=what)
        except TimeoutError as error:
            shown = [(seen.key, str(seen.value)[:80]) for seen in self.seen[-10:]]
            raise TimeoutError(f"{error}\n{len(self.seen)} calls seen, last: {shown}") from None

    async def until_value(self, value: Any, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until the value was seen."""
        await self.until(lambda it: value in it.values, seconds, what=f"value {str(value)[:80]}")

    async def off(self) -> None:
        """End the listener."""
        await self._client.command("off", sub=self._number)


class GunClient(NodeChild):
    """A gun.js client in a process of its own, connected to the given relays and nothing else."""

    name = "gun.js client"

    def __init__(self, process: Process, log: Path) -> None:
        super().__init__(process, log)
        self._listeners: dict[int, Listener] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls, *urls: str, log: Path, tap: bool = False, connected: bool = True
    ) -> AsyncIterator[GunClient]:
        """Run a client of the relays at ``urls``; ``tap`` reports every frame as an event.

        ``connected`` waits for the first connection to open.
        """
        process = await start_node("gun_client.cjs", {"peers": urls, "tap": tap}, log)
        async with running(cls(process, log)) as client:
            await client.event("ready")
            if connected and urls:
                await client.event("open")
            yield client

    def _event(self, event: dict[str, Any]) -> None:
        listener = self._listeners.get(event.get("sub", 0))
        if listener is not None:
            listener.seen.append(Seen.of(event))

    async def put(
        self,
        path: GunPath,
        value: Any,
        *,
        ack: bool = True,
        cert: str | None = None,
        seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """Write; with ``ack`` wait for the first acknowledgement. Raises RuntimeError when it is an error."""
        self._told(
            "put",
            await self.command(
                "put", seconds, path=path, value=value, ack=ack, **({"cert": cert} if cert else {})
            ),
        )

    async def link(self, path: GunPath, target: GunPath) -> None:
        """Write a link to the node at ``target``."""
        self._told("link", await self.command("put", path=path, link=target))

    async def batch(self, path: GunPath, items: Mapping[str, Any], *, seconds: float = 30.0) -> None:
        """Write each item in a put of its own, all in one turn, and wait for every acknowledgement."""
        answer = await self.command("batch", seconds, path=path, items=items)
        if answer["errors"]:
            raise RuntimeError(f"batch: {answer['errors'][:3]}")

    async def once(
        self, path: GunPath, *, wait: int | None = None, seconds: float = DEADLINE_SECONDS
    ) -> Seen:
        """Read one time, as the program would with .once(callback, {wait})."""
        return Seen.of(await self.command("once", seconds, path=path, **({"wait": wait} if wait else {})))

    async def until_once(self, path: GunPath, value: Any, *, seconds: float = DEADLINE_SECONDS) -> Seen:
        """Read repeatedly until the value is there."""
        seen: Seen | None = None
        with move_on_after(seconds):
            while True:
                seen = await self.once(path)
                if seen.value == value:
                    return seen
        raise TimeoutError(f"{list(path)} is {str(seen)[:200]}, not {str(value)[:200]}, after {seconds} s")

    async def listen(self, path: GunPath, method: str = "on") -> Listener:
        """Listen with .on, or with .once below a map."""
        # The listener must be known before the command is answered: its first call may come first.
        number = await self.start_command("listen", path=path, method=method)
        listener = self._listeners[number] = Listener(self, number)
        for event in self.events:
            if event.get("sub") == number:
                listener.seen.append(Seen.of(event))
        await self.answer(number)
        return listener

    async def set(self, path: GunPath, value: Any = None, *, link: GunPath | None = None) -> str:
        """Add to a set; returns the soul of the item."""
        what: dict[str, Any] = {"link": link} if link else {"value": value}
        answer = await self.command("set", path=path, **what)
        self._told("set", answer)
        return str(answer["soul"])

    async def unset(self, path: GunPath, soul: str) -> None:
        """Take an item out of a set."""
        self._told("unset", await self.command("unset", path=path, soul=soul))

    async def sign_up(self, alias: str, password: str) -> str:
        """Make an account; returns its public key."""
        answer = await self.command("user_create", 30.0, alias=alias, password=password)
        self._told("create", answer)
        return str(answer["pub"])

    async def sign_in(self, alias: str, password: str, *, seconds: float = 30.0) -> str:
        """Sign in by alias and password; returns the public key."""
        answer = await self.command("user_auth", seconds, alias=alias, password=password)
        self._told("auth", answer)
        return str(answer["pub"])

    async def sea(self, name: str, *arguments: Any) -> Any:
        """Call a SEA function; MISSING for undefined."""
        answer = await self.command("sea", name=name, arguments=arguments)
        return MISSING if answer.get("missing") else answer["value"]

    async def memory(self, soul: str) -> Seen:
        """What this client holds itself, without asking anybody."""
        return Seen.of(await self.command("memory", soul=soul))

    async def until_memory(
        self, soul: str, condition: Callable[[Any], bool], *, seconds: float = DEADLINE_SECONDS
    ) -> Seen:
        """Look into the client's memory until the condition holds over the node."""
        held: Seen | None = None
        with move_on_after(seconds):
            while True:
                held = await self.memory(soul)
                if held.value is not MISSING and condition(held.value):
                    return held
                await anyio.sleep(0.02)
        raise TimeoutError(f"memory of {soul} is {str(held)[:200]} after {seconds} s")

    async def cut(self) -> None:
        """Drop the connection without a goodbye. gun.js redials two seconds later."""
        mark = len(self.events)
        await self.command("cut")
        await self.event("closed", since=mark)

    async def send(self, message: Mapping[str, Any] | str) -> None:
        """Put a message, or a raw frame, on the socket as it is."""
        text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
        await self.command("send", text=text)

    async def say(self, message: Mapping[str, Any]) -> None:
        """Say a message through gun.js's own mesh."""
        await self.command("mesh_say", message=message)

    async def peers(self) -> list[dict[str, Any]]:
        """gun.js's own list of peers: url, pid, open."""
        return list(await self.command("peers"))

    def frames(self, direction: str, contains: str = "", since: int = 0) -> list[str]:
        """Tapped frames of one direction ("in" or "out") that contain a text, cut at 4,000 characters."""
        return [
            event["text"]
            for event in self.events[since:]
            if event["event"] == "frame" and event["dir"] == direction and contains in event["text"]
        ]

    @staticmethod
    def _told(what: str, answer: Mapping[str, Any] | None) -> None:
        if answer and answer.get("err") is not None:
            raise RuntimeError(f"{what}: {answer['err']}")
