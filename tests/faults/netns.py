"""Three machines on one: network namespaces on a bridge, any of which can be cut off without a word.

A namespace that is cut keeps its link up; what it sends goes nowhere and nothing comes. So its peers hear
silence, as of a router that has died, and not the end of a connection.

Where namespaces cannot be made, :class:`Valves` does what it can on loopback: what is sent to or by a machine
that is cut waits, as it would in TCP, until the cut is healed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.ports import kept_port

__all__ = ["PORT", "Namespaces", "Valves", "possible"]

PORT: Final = 8764
"""Where a machine serves the native wire."""
_NETNS: Final = Path("/run/netns")
_NEWNET: Final = 0x40000000


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@functools.cache
def possible() -> bool:
    """Whether this process may make namespaces and bridges."""
    try:
        with Namespaces.made(1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class Namespaces:
    """Namespaces ``0 … count - 1``, each with one address, on a bridge in a namespace of its own."""

    name = "namespaces"

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @classmethod
    @contextmanager
    def made(cls, count: int) -> Iterator[Namespaces]:
        """Make them, and take them away at the end of the block."""
        made = cls(f"air{secrets.token_hex(3)}")
        hub = f"{made._prefix}h"
        with ExitStack() as stack:
            made._add(hub, stack)
            _run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", hub, "link", "set", "bridge", "up")
            for number in range(count):
                name = made._name(number)
                made._add(name, stack)
                port = f"port{number}"
                _run(
                    *("ip", "-n", hub, "link", "add", port, "type", "veth"),
                    *("peer", "name", "eth0", "netns", name),
                )
                _run("ip", "-n", hub, "link", "set", port, "master", "bridge", "up")
                _run("ip", "-n", name, "addr", "add", f"{made.host(number)}/24", "dev", "eth0")
                _run("ip", "-n", name, "link", "set", "eth0", "up")
            yield made

    def _name(self, number: int) -> str:
        return f"{self._prefix}n{number}"

    @staticmethod
    def _add(name: str, stack: ExitStack) -> None:
        _run("ip", "netns", "add", name)
        stack.callback(_run, "ip", "netns", "del", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")

    @staticmethod
    def host(number: int) -> str:
        return f"10.77.0.{number + 1}"

    def listen(self, number: int) -> str:
        """Where machine ``number`` serves the native wire."""
        return f"/ip4/{self.host(number)}/tcp/{PORT}"

    def address(self, source: int, target: int) -> str:
        """Where machine ``source`` reaches the native wire of ``target``."""
        return self.listen(target)

    @contextmanager
    def inside(self, number: int) -> Iterator[None]:
        """Sockets that this thread makes, and processes that it starts, belong to machine ``number``.

        Nothing else may run on this thread meanwhile.
        """
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(_NETNS / self._name(number), os.O_RDONLY)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(own)
        finally:
            os.close(own)

    def cut(self, number: int) -> None:
        """From now on all that ``number`` sends is dropped, and all that is sent to it."""
        _run("ip", "-n", f"{self._prefix}h", "link", "set", f"port{number}", "nomaster")

    def heal(self, number: int) -> None:
        """What is sent arrives again."""
        _run("ip", "-n", f"{self._prefix}h", "link", "set", f"port{number}", "master", "bridge")


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Valves:
    """The same for processes on loopback: they reach each other through ports of this process."""

    name = "valves"

    def __init__(self, count: int) -> None:
        self._ports = [kept_port() for _ in range(count)]
        self._doors: dict[tuple[int, int], socket.socket] = {}
        self._open = [threading.Event() for _ in range(count)]
        self._conns: list[socket.socket] = []

    @classmethod
    @contextmanager
    def made(cls, count: int) -> Iterator[Valves]:
        """Open them, and close all at the end of the block."""
        made = cls(count)
        for event in made._open:
            event.set()
        for source in range(count):
            for target in range(count):
                if source != target:
                    made._doors[source, target] = made._door(source, target)
        try:
            yield made
        finally:
            for event in made._open:
                event.set()
            for one in (*made._doors.values(), *made._conns):
                _shut(one)

    def _door(self, source: int, target: int) -> socket.socket:
        door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, args=(door, source, target), daemon=True).start()
        return door

    def _serve(self, door: socket.socket, source: int, target: int) -> None:
        while True:
            try:
                near, _ = door.accept()
                self._conns.append(near)
                self._pass(source, target)
                far = socket.create_connection(("127.0.0.1", self._ports[target]))
            except OSError:
                if door.fileno() < 0:
                    return
                _shut(near)
                continue
            self._conns.append(far)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other, source, target), daemon=True).start()

    def _pass(self, source: int, target: int) -> None:
        self._open[source].wait()
        self._open[target].wait()

    def _pump(self, one: socket.socket, other: socket.socket, source: int, target: int) -> None:
        try:
            while data := one.recv(65536):
                self._pass(source, target)
                other.sendall(data)
        except OSError:
            pass
        self._pass(source, target)
        _shut(one)
        _shut(other)

    def listen(self, number: int) -> str:
        """Where machine ``number`` serves the native wire."""
        return f"/ip4/127.0.0.1/tcp/{self._ports[number]}"

    def address(self, source: int, target: int) -> str:
        """Where machine ``source`` reaches the native wire of ``target``."""
        return f"/ip4/127.0.0.1/tcp/{self._doors[source, target].getsockname()[1]}"

    @contextmanager
    def inside(self, number: int) -> Iterator[None]:
        """All are on this machine."""
        yield

    def cut(self, number: int) -> None:
        """From now on all that ``number`` sends waits, and all that is sent to it."""
        self._open[number].clear()

    def heal(self, number: int) -> None:
        """What waits and what is sent arrives."""
        self._open[number].set()


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
