"""Structured logs on standard error: text or JSON lines, at a bounded rate. (shell)

``logging.getLogger("air.sync").warning("refused a message", extra={"code": "gun.bad-json", "peer": …})``
is the whole vocabulary. What is in ``extra`` becomes ``key=value`` or fields of the JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

from air.node.config import LogConfig

__all__ = ["JsonFormatter", "RateLimit", "TextFormatter", "logging_to"]

_QUEUE_MAX: Final = 4096
"""Messages that wait for a slow reader of standard error; beyond it they are dropped."""
_CODES_MAX: Final = 1024
_FLUSH_SECONDS: Final = 1.0
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class RateLimit(logging.Filter):
    """Let ``burst`` messages of one code through, then as many again after ``burst_seconds``.

    A message without a code counts by the line that logs it. The first message after a gap carries
    ``suppressed``: how many were left out. So a hostile peer cannot fill a disk.
    """

    def __init__(self, burst: int, burst_seconds: float) -> None:
        super().__init__()
        self._burst, self._seconds = burst, burst_seconds
        self._windows: dict[str, list[float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        code = getattr(record, "code", None) or f"{record.name}:{record.lineno}"
        window = self._windows.get(code)
        if window is None:
            if len(self._windows) >= _CODES_MAX:
                code = "other"
            window = self._windows.setdefault(code, [record.created, 0, 0])
        started, passed, suppressed = window
        # A clock that was set back starts a new window too.
        if not 0 <= record.created - started < self._seconds:
            window[:] = [record.created, 1, 0]
            if suppressed:
                record.suppressed = int(suppressed)
            return True
        if passed < self._burst:
            window[1] += 1
            return True
        window[2] += 1
        return False


def _extras(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for name, value in vars(record).items():
        if name not in _STANDARD and not name.startswith("_"):
            yield name, value


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """``time LEVEL logger message key=value …``, always one line, whatever a peer put into it."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_time(record), record.levelname, record.name, _printable(record.getMessage())]
        parts += [f"{name}={_quoted(value)}" for name, value in _extras(record)]
        if record.exc_info:
            parts.append(f"exception={_quoted(self.formatException(record.exc_info))}")
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _extras(record):
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and text.isprintable() and not set(text) & {" ", '"', "=", "\\"}
    return _encodable(text) if plain else json.dumps(text)


def _printable(text: str) -> str:
    return _encodable(text) if text.isprintable() else json.dumps(text)[1:-1]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class _Writer(logging.Handler):
    """Writes on a thread of its own: nobody may have to wait for a reader of our standard error."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUE_MAX)
        self._thread = threading.Thread(target=self._run, name="air-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            pass
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        try:
            self._lines.put_nowait(None)
            self._thread.join(_FLUSH_SECONDS)
        except queue.Full:
            pass
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(line + "\n")
            except (OSError, ValueError):
                return  # nobody reads any more


def _to_standard_error(text: str) -> None:
    # Not through sys.stderr: a thread that waits inside it holds its lock, and Python aborts at exit.
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(2, data) :]


@contextmanager
def logging_to(config: LogConfig, stream: TextIO | None = None) -> Iterator[None]:
    """Send everything that is logged to ``stream`` (standard error) while the block runs."""
    handler = _Writer(_to_standard_error if stream is None else stream.write)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    handler.addFilter(RateLimit(config.burst, config.burst_seconds))
    root, ours = logging.getLogger(), logging.getLogger("air")
    before = (root.handlers[:], root.level, ours.level)
    root.handlers[:] = [handler]
    # Libraries are heard when something is wrong; their tale of every day is not ours to tell.
    root.setLevel(logging.WARNING)
    ours.setLevel(config.level.upper())
    try:
        yield
    finally:
        root.handlers[:], root.level, ours.level = before
        handler.close()
