"""A daemon to be attacked, and what its process uses."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Daemon", "running"]


@dataclass
class Daemon:
    process: subprocess.Popen[bytes]
    gun: str
    admin: str
    token: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.gun.rpartition(":")[2].partition("/")[0])

    @property
    def rss(self) -> int:
        """Bytes of memory that are really there."""
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, path: str) -> bytes:
        """What the admin interface says."""
        request = urllib.request.Request(self.admin + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def metric(self, name: str, label: str = "") -> float:
        """One counter, the sum over its labels unless one is given; 0 when it was never touched."""
        total = 0.0
        for line in self.ask("/metrics").decode().splitlines():
            if (
                line.startswith((name + " ", name + "{", name + "_total ", name + "_total{"))
                and label in line
            ):
                total += float(line.rpartition(" ")[2])
        return total


@contextmanager
def running(data: Path, *lines: str, env: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon over ``data`` with ``lines`` of TOML as its configuration."""
    data.mkdir(parents=True, exist_ok=True)
    config = data / "test.toml"
    config.write_text("\n".join(lines))
    log = data / "log.txt"
    command = [sys.executable, "-m", "air", "run", "--config", str(config), "--data", str(data / "node")]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--port", "0", "--admin", "127.0.0.1:0", "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=env,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        info: dict[str, Any] = json.loads(line)
        token = (data / "node" / "admin.token").read_text().strip()
        yield Daemon(process, info["gun"][0], info["admin"].rstrip("/"), token, log)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
