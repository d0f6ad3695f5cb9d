"""Files of one directory over HTTP: a page next to the relay it talks to. (shell)

What a path may name is decided by ``segments`` and ``not_modified``, which compute and touch no file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

import anyio
from anyio import to_thread

from air.base.errors import ConfigError
from air.transport.http import HttpResponse, Request, plain

__all__ = ["StaticConfig", "StaticFiles", "not_modified", "segments"]

# Our own table: the one of the standard library reads files of the machine and so differs between machines.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".gif": "image/gif",
    ".htm": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}

_COMMON = {
    # As GUN's relay sends it (gun-wire 1.2): a page from anywhere may load gun.js from here.
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class StaticConfig:
    whole_bytes_max: int = 256 * 1024
    """Files up to this length are sent in one piece; longer ones in pieces of this length."""
    index: str = "index.html"
    """What stands for a directory."""


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    size: int
    tag: str
    data: bytes | None
    """The content when it was read already."""


_SLASH = _Found("", 0, "", None)


class StaticFiles:
    """An HttpHandler that serves the files of ``root`` and nothing else.

    Names that begin with a dot, special files, and symbolic links that lead out of ``root`` do not exist.
    """

    def __init__(self, root: str | os.PathLike[str], config: StaticConfig | None = None) -> None:
        """Raises ConfigError with code ``http.no-directory``."""
        self._config = StaticConfig() if config is None else config
        self._root = os.path.realpath(root)
        if not os.path.isdir(self._root):
            raise ConfigError(f"{os.fspath(root)} is no directory", code="http.no-directory")

    async def __call__(self, request: Request) -> HttpResponse:
        names = segments(request.path)
        if names is None:
            return plain(404, headers=_COMMON)
        try:
            slash = request.route.endswith("/")
            found = await to_thread.run_sync(self._find, names, slash, request.method == "HEAD")
        except (OSError, ValueError):
            return plain(404, headers=_COMMON)
        if found is None:
            return plain(404, headers=_COMMON)
        if found is _SLASH:
            # Without the slash the page's relative links would point beside the directory.
            where = "/" + "/".join(map(quote, names)) + "/"
            return plain(301, headers={**_COMMON, "Location": where})
        kind = _TYPES.get(os.path.splitext(found.path)[1].lower(), "application/octet-stream")
        headers = {**_COMMON, "Content-Type": kind, "ETag": found.tag}
        if not_modified(request.headers.get("if-none-match"), found.tag):
            return HttpResponse(304, headers)
        headers["Content-Length"] = str(found.size)
        if found.data is not None:
            return HttpResponse(200, headers, found.data)
        return HttpResponse(200, headers, self._pieces(found))

    def _find(self, names: tuple[str, ...], slash: bool, head_only: bool) -> _Found | None:
        """Runs in a thread. ``_SLASH`` for a directory with an index that was asked for without its slash."""
        path = self._inside(os.path.join(self._root, *names))
        if path is None:
            return None
        if os.path.isdir(path):
            index = self._inside(os.path.join(path, self._config.index))
            if index is None or not os.path.isfile(index):
                return None
            if names and not slash:
                return _SLASH
            path = index
        elif slash:
            return None
        with open(path, "rb", buffering=0, opener=_open) as file:
            # Looked at after opening, in case it was exchanged.
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                return None
            tag = f'"{about.st_mtime_ns:x}-{about.st_size:x}"'
            data: bytes | None = None
            if about.st_size <= self._config.whole_bytes_max and not head_only:
                data = file.read(about.st_size)
                return _Found(path, len(data), tag, data)
            return _Found(path, about.st_size, tag, data)

    def _inside(self, path: str) -> str | None:
        """The real place of ``path``, or None when that is missing, outside, or hidden inside."""
        try:
            real = os.path.realpath(path, strict=True)
        except OSError:
            return None
        if real == self._root:
            return real
        below = os.path.join(self._root, "")
        if not real.startswith(below) or any(
            name.startswith(".") for name in real[len(below) :].split(os.sep)
        ):
            return None
        return real

    async def _pieces(self, found: _Found) -> AsyncIterator[bytes]:
        left = found.size
        async with await anyio.open_file(found.path, "rb", opener=_open) as file:
            while left > 0:
                piece = await file.read(min(left, self._config.whole_bytes_max))
                if not piece:
                    # It became shorter while it was sent; the missing bytes tell the client.
                    return
                left -= len(piece)
                yield piece


def _open(path: str, flags: int) -> int:
    """Without waiting, in case it is a pipe by now, and not through a link that has taken its place."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def segments(path: str) -> tuple[str, ...] | None:
    """The names in the path of a URL, decoded once; None when no file may be called that.

    No name is empty, begins with a dot (so none is ``..``), or holds a slash, a backslash or a NUL, however
    it was encoded.
    """
    route = path.partition("?")[0].partition("#")[0]
    if not route.startswith("/"):
        return None
    names: list[str] = []
    for encoded in route.split("/"):
        if not encoded:
            continue
        try:
            name = unquote_to_bytes(encoded).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if name.startswith(".") or any(character in name for character in "/\\\0"):
            return None
        names.append(name)
    return tuple(names)


def not_modified(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has what ``tag`` names (RFC 9110, 13.1.2: compared weakly)."""
    if if_none_match is None:
        return False
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return "*" in known or tag in known
