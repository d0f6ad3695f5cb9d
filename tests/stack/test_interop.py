"""``air interop`` and ``air stack`` as a script meets them: wrong words, closed pipes, silent peers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from air.daemon.cli import main

ROOT = Path(__file__).parent.parent.parent
NOWHERE = "/ip4/127.0.0.1/tcp/1"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (f"dial {NOWHERE} --ops echo --bytes -1", "--bytes: -1 is not between"),
        (f"dial {NOWHERE} --ops perf --up -1", "--up: -1 is not between"),
        (f"dial {NOWHERE} --ops perf --down -1", "--down: -1 is not between"),
        (f"dial {NOWHERE} --ops perf --down {2**64}", "--down: 18446744073709551616 is not between"),
        (f"dial {NOWHERE} --bytes much", "--bytes: 'much' is no whole number"),
        (f"dial {NOWHERE} --count 0", "--count: 0 is not between 1 and"),
        (f"dial {NOWHERE} --mplex-opens -1", "--mplex-opens: -1 is not between"),
        (f"dial {NOWHERE} --timeout 0", "--timeout: '0' is no number"),
        (f"dial {NOWHERE} --timeout -1", "--timeout: '-1' is no number"),
        (f"ping {NOWHERE} --timeout nan", "--timeout: 'nan' is no number"),
        (f"ping {NOWHERE} --timeout soon", "--timeout: 'soon' is no number"),
        (f"dial {NOWHERE} --ti 5", "unrecognized arguments: --ti 5"),
        (f"dial {NOWHERE} --seed 00", "--seed: wants 64 hex digits"),
        (f"dial {NOWHERE} --seed {'xy' * 32}", "--seed: wants 64 hex digits"),
        (f"dial {NOWHERE} --ops ping,sing", "--ops: there is no operation 'sing'"),
        (f"dial {NOWHERE} --target nobody", "--target: 'nobody' is no peer id"),
        (f"dial {NOWHERE} --bootstrap nowhere", "--bootstrap: 'nowhere' is no address"),
        (f"ping {NOWHERE} --dht server", "unrecognized arguments: --dht server"),
        (f"ping {NOWHERE} --bootstrap {NOWHERE}", "unrecognized arguments: --bootstrap"),
        ("dial nowhere", "'nowhere' is no address"),
        ("ping nowhere", "'nowhere' is no address"),
        ("ping /ip4/127.0.0.1/tcp/99999", "is no address"),
        (f"ping {NOWHERE}/p2p/nobody", "is no address"),
        ("listen --tcp-port -1", "--tcp-port: -1 is not between 0 and 65535"),
        ("listen --ws-port 65536", "--ws-port: 65536 is not between 0 and 65535"),
        ("listen --host nowhere", "is no address"),
        ("listen --bootstrap nowhere", "--bootstrap: 'nowhere' is no address"),
        ("listen here", "listen wants no more words"),
        ("dial", "dial wants one address"),
    ],
)
def test_a_word_that_cannot_be_meant_is_named_and_the_exit_code_says_usage(
    words: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["interop", *words.split()]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert says in error
    assert len(error.splitlines()) == 1
    assert f"air interop {words.split()[0]} --help" in error


def test_help_of_the_stack_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["stack", "--help"], ["stack", "show", "-h"], ["interop", "ping", "--help"]):
        assert main(words) == 0
        assert "usage: air" in capsys.readouterr().out


def run(words: str, *, backend: str = "asyncio") -> tuple[int, list[dict[str, object]], str]:
    command = f"{sys.executable} -m air interop --backend {backend} {words}"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=30)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_listener_whose_stdin_was_never_open_ends_at_once(backend: str) -> None:
    code, (told,), error = run("listen <&-", backend=backend)
    assert (code, told["event"], error) == (0, "listening", "")


def test_closed_outputs_change_no_exit_code() -> None:
    assert run("listen <&- >&- 2>&-") == (0, [], "")
    assert run(f"ping {NOWHERE} >&-") == (1, [], "")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"


def test_whatever_cannot_be_reached_is_told_as_json_within_the_given_time(silent: str) -> None:
    for words, op, failing in (
        (silent, "dial", "interop.timeout"),
        (NOWHERE, "dial", "dial.unreachable"),
        (f"{NOWHERE} --bootstrap {silent}", "bootstrap", "interop.timeout"),
        (f"{silent} --bootstrap {NOWHERE}", "bootstrap", "dial.unreachable"),
    ):
        start = time.monotonic()
        code, (told,), error = run(f"dial {words} --timeout 300")
        assert (code, told["event"], told["op"], told["code"], error) == (1, "failed", op, failing, "")
        # The swarm itself would wait five seconds for a handshake.
        assert time.monotonic() - start < 4.5


def test_more_streams_than_a_connection_may_have_end_the_echo_and_not_the_patience() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "air", "interop", "listen"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as listener:
        assert listener.stdout is not None
        address = json.loads(listener.stdout.readline())["addrs"][0]
        start = time.monotonic()
        code, (_, echo), error = run(f"dial {address} --ops echo --count 100000 --timeout 2000")
        assert (code, echo["ok"], error) == (1, False, "")
        # By which limit, or by the time, depends on who is faster.
        assert echo["code"]
        assert time.monotonic() - start < 8
        assert listener.stdin is not None
        listener.stdin.close()
        assert listener.wait(15) == 0


def test_a_listener_tells_as_json_that_it_found_no_way_in() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "air", "interop", "listen", "--bootstrap", NOWHERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert (told["event"], told["op"], told["addr"]) == ("failed", "bootstrap", NOWHERE)
        assert process.wait(15) == 1


def test_a_listener_that_looks_for_a_way_in_ends_when_its_stdin_closes(silent: str) -> None:
    start = time.monotonic()
    assert run(f"listen --bootstrap {silent} </dev/null") == (0, [], "")
    assert time.monotonic() - start < 4.5
