"""Relays under test: started fresh on an empty directory, and gone without a trace afterwards. (shell)"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from air.base.errors import Unreachable

__all__ = ["Running", "ack_server", "air", "stock"]

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

    def last_words(self) -> str:
        """The last lines that the relay printed."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])[-400:]


@contextmanager
def air(data_root: Path | None = None) -> Iterator[Running]:
    """The Air daemon with its default config; every acknowledged write has been fsynced."""

    def command(data: Path) -> list[str]:
        where = ["--data", str(data / "air"), "--host", "127.0.0.1", "--port", "0"]
        return [sys.executable, "-m", "air", "run", *where, "--admin", "127.0.0.1:0", "--json"]

    with _started("air", command, data_root, {"PYTHONPATH": str(_ROOT)}) as running:
        yield running


@contextmanager
def stock(data_root: Path | None = None) -> Iterator[Running]:
    """gun's own relay on Node.js, default disk store and AXE. Needs ``node`` and the package ``gun``."""
    with _started("stock", lambda _: ["node", str(_HERE / "stock_relay.cjs")], data_root, {}) as running:
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
def _started(name: str, command: object, data_root: Path | None, extra: dict[str, str]) -> Iterator[Running]:
    data = Path(tempfile.mkdtemp(prefix=f"air-bench-{name}-", dir=data_root))
    log = data / "output.log"
    try:
        with log.open("wb") as output:
            arguments: Sequence[str] = command(data)  # type: ignore[operator]
            process = subprocess.Popen(
                arguments,
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
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _ready(name: str, process: subprocess.Popen[bytes], log: Path) -> Running:
    """Wait for the line of JSON that says where the relay listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith('{"') and line.endswith("}"):
                told = json.loads(line)
                if "gun" in told:
                    return Running(told["gun"][0], process.pid, str(told.get("version", "")), log)
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
