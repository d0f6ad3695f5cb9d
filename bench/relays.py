"""Relays under test: started fresh on an empty directory, and gone without a trace afterwards. (shell)"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from air.base.errors import Unreachable

__all__ = ["Running", "ack_server", "again", "air", "stock"]

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    pid: int
    version: str
    log: Path
    native: str = ""
    """Multiaddr of the native wire, where there is one."""

    def last_words(self) -> str:
        """The last lines that the relay printed."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])[-400:]


@contextmanager
def air(data_root: Path | None = None, peers: Sequence[str] = ()) -> Iterator[Running]:
    """The Air daemon with its default config; every acknowledged write has been fsynced.

    ``peers``: URLs and multiaddrs to stay linked to.
    """
    options = [word for peer in peers for word in ("--peer", peer)]

    def command(data: Path) -> list[str]:
        return [*_air_command(data), *options]

    with _started("air", command, data_root, {"PYTHONPATH": str(_ROOT)}) as running:
        yield running


def _air_command(data: Path) -> list[str]:
    where = ["--data", str(data / "air"), "--host", "127.0.0.1", "--port", "0"]
    where += ["--listen", "/ip4/127.0.0.1/tcp/0"]
    return [sys.executable, "-m", "air", "run", *where, "--admin", "127.0.0.1:0", "--json"]


def _stock_command(_: Path) -> list[str]:
    return ["node", str(_HERE / "stock_relay.cjs")]


@contextmanager
def again(side: str, data: Path) -> Iterator[Running]:
    """``air`` or ``stock`` on a folder that stays: what it holds is there at the next start."""
    command = _air_command if side == "air" else _stock_command
    with _process(side, command(data), data, {"PYTHONPATH": str(_ROOT)}) as running:
        yield running


@contextmanager
def stock(data_root: Path | None = None, peers: Sequence[str] | None = None) -> Iterator[Running]:
    """gun's own relay on Node.js, default disk store and AXE. Needs ``node`` and the package ``gun``.

    ``peers``: it is one of a chain and dials these. It floods then, because with AXE it would dial nobody.
    """
    options = [] if peers is None else [json.dumps(list(peers))]

    def command(data: Path) -> list[str]:
        return [*_stock_command(data), *options]

    with _started("stock", command, data_root, {}) as running:
        yield running


@contextmanager
def ack_server(data_root: Path | None = None) -> Iterator[Running]:
    """A server in C that answers everything and keeps nothing: the ceiling of the generator. Needs ``cc``."""
    with tempfile.TemporaryDirectory(prefix="air-bench-") as folder:
        binary = Path(folder) / "ack_server"
        subprocess.run(["cc", "-O2", "-o", str(binary), str(_HERE / "ack_server.c")], check=True)
        with _started("ack", lambda _: [str(binary)], data_root, {}) as running:
            yield running


@contextmanager
def _started(
    name: str, command: Callable[[Path], Sequence[str]], data_root: Path | None, extra: dict[str, str]
) -> Iterator[Running]:
    data = Path(tempfile.mkdtemp(prefix=f"air-bench-{name}-", dir=data_root))
    try:
        with _process(name, command(data), data, extra) as running:
            yield running
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def _process(name: str, command: Sequence[str], data: Path, extra: dict[str, str]) -> Iterator[Running]:
    log = data / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=data,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **extra},
        )
        try:
            yield _ready(name, process, log)
        finally:
            _stop(process)


def _ready(name: str, process: subprocess.Popen[bytes], log: Path) -> Running:
    """Wait for the line of JSON that says where the relay listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith('{"') and line.endswith("}"):
                told = json.loads(line)
                if "gun" in told:
                    native = "".join(told.get("native", [])[:1])
                    return Running(told["gun"][0], process.pid, str(told.get("version", "")), log, native)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    tail = log.read_text(errors="replace")[-800:]
    raise Unreachable(f"{name} did not start (exit {process.poll()}): {tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
