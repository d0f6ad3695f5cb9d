"""Structured logs."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

from air.daemon.logs import RateLimit, logging_to
from air.node.config import LogConfig


def logged(config: LogConfig, work: Callable[[logging.Logger], None]) -> list[str]:
    stream = io.StringIO()
    with logging_to(config, stream):
        work(logging.getLogger("air.test"))
    return stream.getvalue().splitlines()


def test_extras_become_key_and_value() -> None:
    def work(log: logging.Logger) -> None:
        log.warning("refused %s", "it", extra={"code": "gun.bad", "peer": "a b", "count": 3, "none": ""})

    (line,) = logged(LogConfig(), work)
    time_text, _, rest = line.partition(" ")
    assert len(time_text) == len("2026-01-01T00:00:00.000Z")
    assert rest == 'WARNING air.test refused it code=gun.bad peer="a b" count=3 none=""'


def test_json_lines_hold_the_same() -> None:
    def work(log: logging.Logger) -> None:
        log.error("bad", extra={"code": "gun.bad", "peer": "ü\n", "odd": {1}})

    (line,) = logged(LogConfig(format="json"), work)
    record = json.loads(line)
    assert {record[key] for key in ("level", "logger", "message", "code", "peer")} == {
        "error",
        "air.test",
        "bad",
        "gun.bad",
        "ü\n",
    }
    assert record["odd"] == "{1}"


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_peer_cannot_forge_a_line(kind: str) -> None:
    def work(log: logging.Logger) -> None:
        log.warning("said x\n2026 ERROR air forged", extra={"text": "y\r\nERROR\x1b[2J\u2028 \ud800"})
        try:
            raise ValueError("a\nb")
        except ValueError:
            log.exception("failed")

    lines = logged(LogConfig(format=kind), work)
    assert len(lines) == 2
    assert not any(char in line for line in lines for char in "\x1b\u2028\ud800")


def test_one_code_cannot_flood_the_log_and_what_was_left_out_is_counted() -> None:
    def record(code: str, created: float) -> logging.LogRecord:
        return logging.makeLogRecord({"code": code, "created": created, "msg": "m"})

    limit = RateLimit(burst=3, burst_seconds=10)
    assert sum(limit.filter(record("a", 100 + i / 100)) for i in range(50)) == 3
    assert limit.filter(record("b", 101))
    later = record("a", 111)
    assert limit.filter(later)
    assert later.__dict__["suppressed"] == 47
    assert limit.filter(record("a", 50)), "a clock that was set back must not silence the log"


def test_made_up_codes_do_not_grow_the_memory() -> None:
    limit = RateLimit(burst=2, burst_seconds=10)
    for number in range(5000):
        limit.filter(logging.makeLogRecord({"code": f"code-{number}", "created": 1.0}))
    assert len(limit._windows) <= 1025


def test_the_level_holds_for_us_and_libraries_are_heard_when_something_is_wrong() -> None:
    def work(log: logging.Logger) -> None:
        log.debug("ours")
        logging.getLogger("library").info("chatter")
        logging.getLogger("library").warning("trouble")

    assert [line.split()[-1] for line in logged(LogConfig(level="debug"), work)] == ["ours", "trouble"]
    assert [line.split()[-1] for line in logged(LogConfig(level="error"), work)] == ["trouble"]


FLOOD = """
import logging
from air.daemon.logs import logging_to
from air.node.config import LogConfig
with logging_to(LogConfig(burst=100_000)):
    for _ in range(20_000):
        logging.getLogger("air.test").info("x" * 100)
print("done")
"""


def test_nobody_waits_for_a_reader_that_does_not_read() -> None:
    command = [sys.executable, "-c", FLOOD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.wait(20) == 0
        assert process.stdout.read() == b"done\n"


def test_what_was_configured_before_comes_back() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    logged(LogConfig(), lambda log: None)
    assert (root.handlers, root.level) == before
