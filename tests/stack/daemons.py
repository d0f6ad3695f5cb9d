"""Daemons in processes of their own, asked over their admin interface and by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Daemon", "stopped"]


class Daemon:
    """One process over one data folder, ready when it is made."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        given = ["--json", "--data", str(data), "--port", "0", "--admin", "127.0.0.1:0", *options]
        self.log = data.parent / f"{data.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "air", "run", *given],
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environ(data),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        info = json.loads(line)
        self.peer: str = info["peer"]
        self.url: str = info["gun"][0]
        self.native: str = info["native"][0]
        self.admin: str = info["admin"]
        self._token = (data / "admin.token").read_text().strip()

    def call(self, method: str, path: str, body: bytes | None = None, **query: str) -> Any:
        """What the admin interface answers; None for what is not there."""
        url = f"{self.admin}{path}?{urllib.parse.urlencode(query)}"
        headers = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                text = response.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(error.read().decode()) from None
        return text if path == "/metrics" else json.loads(text)

    def health(self) -> Any:
        return self.call("GET", "/health")

    def peers(self) -> list[dict[str, Any]]:
        return list(self.call("GET", "/v1/peers")["peers"])

    def put(self, soul: str, fields: dict[str, Any]) -> float:
        """Write; returns the state."""
        return float(self.call("PUT", "/v1/node", json.dumps(fields).encode(), soul=soul)["state"])

    def get(self, soul: str) -> dict[str, Any] | None:
        """The values of a node."""
        found = self.call("GET", "/v1/node", soul=soul)
        return None if found is None else {key: one["value"] for key, one in found["fields"].items()}

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [line.rpartition(" ") for line in self.call("GET", "/metrics").splitlines() if line[0] != "#"]
        return sum(float(value) for key, _, value in lines if key.partition("{")[0] == name)

    def air(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line for this daemon."""
        command = [sys.executable, "-m", "air", *words, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, env=_environ(self.data), timeout=60)

    def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        done = self.air(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def _environ(data: Path) -> dict[str, str]:
    # What the person running the suite has configured for their own daemon must not leak in.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIR_")}
    return {**environ, "XDG_CONFIG_HOME": str(data.parent / "no-config")}


@contextmanager
def stopped(daemons: Sequence[Daemon]) -> Iterator[None]:
    """At the end of the block none of them runs any more."""
    try:
        yield
    finally:
        for daemon in daemons:
            daemon.process.kill()
        for daemon in daemons:
            daemon.process.wait()
            assert daemon.process.stdout is not None
            daemon.process.stdout.close()
