"""The command line's way to the daemon. (shell)

Only the standard library: a command must be done in less time than the daemon's libraries take to load.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, urlsplit

from air.base.errors import AirError, ConfigError, Denied, Misuse
from air.base.keys import read_secret
from air.daemon.datadir import is_held, read_daemon_file
from air.node.config import Config

__all__ = ["Client", "connect"]

_TIMEOUT_SECONDS: Final = 30.0
_LINE_BYTES_MAX: Final = 256 * 1024 * 1024
_USAGE: Final = frozenset(
    {"admin.bad-query", "address.bad-text", "address.unknown-protocol", "peer-id.bad-text"}
)
"""Refusals of words that the command has only passed on."""


def connect(config: Config, api: str | None, token_file: str | None) -> Client:
    """A client of the daemon that holds the data folder, or of the one at the URL ``api``.

    The token of the data folder is sent to this machine only; elsewhere ``token_file`` must be given.
    Raises AirError ``daemon.none``, ConfigError when the token cannot be read.
    """
    folder = config.node.data
    if api is None:
        found = read_daemon_file(folder) if is_held(folder) else None
        if found is None:
            raise AirError(f"no daemon runs on {folder} (start one: air run)", code="daemon.none")
        api = found.admin
    parts = urlsplit(api)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query:
        raise Misuse(f"--api wants a URL such as http://127.0.0.1:8766, not {api}")
    path = config.token_path if token_file is None else token_file
    if token_file is None and not _is_here(host):
        raise Misuse(f"name the token for {host}: --token-file")
    try:
        token = read_secret(path).strip().decode("ascii", "replace")
    except ConfigError as error:
        if error.code == "secret.unreadable":
            raise Denied(error.message, code="admin.no-token") from None
        raise
    return Client(parts.scheme == "https", host, port, token)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Client:
    """One connection for one command."""

    def __init__(self, tls: bool, host: str, port: int | None, token: str) -> None:
        kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
        self._where = f"{host}:{port}" if port else host
        self._connection = kind(host, port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {token}"}

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        *,
        accept: tuple[int, ...] = (200, 202),
        seconds: float = _TIMEOUT_SECONDS,
    ) -> bytes:
        """The body of the answer. Raises AirError with the code the daemon gave."""
        self._connection.timeout = seconds
        try:
            response = self._send(method, path, query, body)
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None
        if response.status not in accept:
            raise _refusal(response.status, data)
        return data

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """The objects of a stream, without its heartbeats, until the daemon ends it."""
        self._connection.timeout = None  # the daemon chooses how often it has something to say
        try:
            response = self._send("GET", path, query, None)
            if response.status != 200:
                raise _refusal(response.status, response.read())
            while line := response.readline(_LINE_BYTES_MAX):
                record = json.loads(line)
                if "error" in record:
                    raise _refusal(500, line)
                if "heartbeat" not in record:
                    yield record
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from None

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: object
    ) -> http.client.HTTPResponse:
        if query:
            path += "?" + "&".join(f"{name}={_quoted(value)}" for name, value in query.items())
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if data else {})
        # The daemon may have answered before it had heard all: read what it said.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request(method, path, data, headers)
        return self._connection.getresponse()

    def _failed(self, error: Exception) -> AirError:
        if isinstance(error, TimeoutError):
            return AirError(f"the daemon at {self._where} does not answer", code="daemon.silent")
        if isinstance(error, ConnectionRefusedError):
            return AirError(f"no daemon answers at {self._where}", code="daemon.none")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        gone = isinstance(error, OSError)
        return AirError(
            f"no answer from {self._where}: {reason}", code="daemon.none" if gone else "daemon.silent"
        )


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def _refusal(status: int, data: bytes) -> AirError:
    code, message = "daemon.error", f"the daemon answered {status}"
    try:
        error = json.loads(data)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, TypeError, KeyError):
        pass
    if status in (401, 403):
        return Denied(message, code=code)
    if code in _USAGE:
        return Misuse(message, code=code)
    return AirError(message, code=code)
