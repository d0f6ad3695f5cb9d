"""The program as its users meet it: a real daemon process, and real commands."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BACKENDS = ["asyncio", "trio"]
DEADLINE_SECONDS = 20.0


@dataclass
class Air:
    """A folder with a daemon in it, and the commands that go there."""

    home: Path
    process: subprocess.Popen[bytes] | None = None
    ready: Mapping[str, Any] | None = None

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AIR_")}
        # A free port for the native wire: a daemon of another test may have the usual one.
        return clean | {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "AIR_NATIVE__LISTEN": "/ip4/127.0.0.1/tcp/0",
        }

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "air", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        # A shell that runs the suite in the background has it ignore Ctrl-C, and children inherit that.
        options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        return subprocess.Popen(command, env=self.environ, **(pipes | options))

    def run(self, *arguments: str, data: bool = True) -> tuple[int, str, str]:
        process = self.popen(*arguments, *(["--data", str(self.data)] if data else []))
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return process.returncode, out.decode(), err.decode()

    def ok(self, *arguments: str) -> str:
        code, out, err = self.run(*arguments)
        assert (code, err) == (0, ""), (arguments, out)
        return out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, code: int, *arguments: str, data: bool = True) -> str:
        """The one line on standard error of a command that ends with ``code``."""
        returned, _, err = self.run(*arguments, data=data)
        assert returned == code, err
        assert err.startswith("air: ")
        assert err.count("\n") == 1
        return err

    def start(self, *arguments: str) -> None:
        fixed = ["--data", str(self.data), "--port", "0", "--admin", "127.0.0.1:0", "--json"]
        self.process = self.popen("run", *fixed, *arguments)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        self.ready = json.loads(line)

    def end(self) -> tuple[int, bytes]:
        """Wait for the daemon. Returns its exit code and what it printed after the ready line."""
        assert self.process is not None
        out, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, out


@contextmanager
def daemon(home: Path, *arguments: str) -> Iterator[Air]:
    air = Air(home)
    try:
        air.start(*arguments)
        yield air
    finally:
        if air.process is not None and air.process.poll() is None:
            air.process.kill()
            air.process.communicate()


@pytest.fixture(scope="module", params=BACKENDS)
def air(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Air]:
    with daemon(tmp_path_factory.mktemp("air"), "--backend", request.param) as running:
        yield running


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_ready_line_holds_everything_one_needs(air: Air) -> None:
    ready = air.ready
    assert ready is not None
    assert list(ready) == ["version", "peer", "gun", "native", "admin", "data"]
    assert ready["peer"].startswith("12D3Koo")
    assert ready["data"] == str(air.data)
    (gun,) = ready["gun"]
    assert gun.startswith("ws://127.0.0.1:")
    assert gun.endswith("/gun")
    assert not gun.startswith("ws://127.0.0.1:0/")
    for url in (gun, ready["admin"]):
        host, port = url.split("//")[1].split("/")[0].split(":")
        socket.create_connection((host, int(port))).close()


def test_what_was_put_is_read_back(air: Air) -> None:
    put = ["name=Ann", "age=7", "ok=true", "gone=null", "pi=3.5", 'friend={"#":"bob"}', "phone=007"]
    receipt = air.json("put", "ann", *put)
    assert (receipt["soul"], receipt["cells"]) == ("ann", 7)
    assert air.json("get", "ann") == {
        "name": "Ann",
        "age": 7,
        "ok": True,
        "gone": None,
        "pi": 3.5,
        "friend": {"#": "bob"},
        "phone": "007",
    }
    assert air.json("get", "ann", "name") == "Ann"
    assert air.ok("get", "ann", "name") == "Ann\n"
    assert air.ok("get", "ann", "age") == "7\n"
    assert 'name: "Ann"\n' in air.ok("get", "ann")
    assert air.json("get", "ann", "name", "--states")["state"] == receipt["state"]
    assert air.ok("put", "ann", "age=8") == ""
    assert air.json("get", "ann", "age") == 8


@pytest.mark.parametrize("soul", ["a/b/c", "größe/😀", "a b&c=d?e#f%41+g", "..", "/", "--", "-x"])
def test_a_soul_may_be_called_anything(air: Air, soul: str) -> None:
    code, _, err = air.run("put", "--data", str(air.data), "--", soul, "k=é😀 ", data=False)
    assert (code, err) == (0, "")
    code, out, _ = air.run("get", "--data", str(air.data), "--json", "--", soul, "k", data=False)
    assert (code, json.loads(out)) == (0, "é😀 ")


def test_a_range_of_keys_is_read(air: Air) -> None:
    air.ok("put", "range", *[f"k{i}={i}" for i in range(10)], "z=0")
    assert list(air.json("get", "range", "--prefix", "k", "--limit", "3")) == ["k0", "k1", "k2"]
    assert list(air.json("get", "range", "--from", "k8", "--to", "z")) == ["k8", "k9", "z"]
    assert list(air.json("get", "range", "--prefix", "k", "--from", "3", "--to", "4")) == ["k3", "k4"]
    assert list(air.json("get", "range", "--reverse", "--limit", "2")) == ["z", "k9"]


def test_each_kind_of_failure_has_its_exit_code(air: Air, tmp_path: Path) -> None:
    assert air.ready is not None
    assert "there is no node nobody" in air.fails(3, "get", "nobody")
    air.ok("put", "somebody", "a=1")
    assert "field b" in air.fails(3, "get", "somebody", "b")
    assert "may hold" in air.fails(1, "put", "somebody", "a=[1]")
    assert "key=value" in air.fails(2, "put", "somebody", "a")
    assert "no daemon" in air.fails(4, "get", "a", "--data", str(tmp_path), data=False)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert "no daemon answers" in air.fails(4, "get", "a", "--api", nobody)
    wrong = tmp_path / "wrong.token"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    api = ["--api", air.ready["admin"]]
    assert "not the token" in air.fails(5, "get", "a", *api, "--token-file", str(wrong))
    assert "secret file" in air.fails(5, "get", "a", *api, "--token-file", str(tmp_path / "missing"))
    wrong.chmod(0o644)
    assert "chmod 600" in air.fails(1, "get", "a", *api, "--token-file", str(wrong))
    assert json.loads(air.run("get", "somebody", "--json", *api)[1]) == {"a": 1}


def test_a_watch_prints_what_is_there_and_each_change(air: Air) -> None:
    air.ok("put", "watched", "a=1")
    process = air.popen("watch", "watched", "--json", "--data", str(air.data))
    lines: list[Any] = []
    assert process.stdout is not None

    def first_lines() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))

    reader = threading.Thread(target=first_lines)
    reader.start()
    try:
        until(lambda: [(line["key"], line["value"]) for line in lines] == [("a", 1)])
        air.ok("put", "watched", "b=two")
        until(lambda: [(line["key"], line["value"]) for line in lines] == [("a", 1), ("b", "two")])
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        reader.join()


def test_the_operators_questions_are_answered(air: Air) -> None:
    assert air.ready is not None
    assert air.ok("id") == air.ready["peer"] + "\n"
    assert air.json("id") == air.ready
    assert air.json("health")["status"] == "ok"
    assert "status: ok\n" in air.ok("health")
    assert air.json("peers") == []
    assert air.ok("peers") == ""
    names = {metric["name"] for metric in air.json("metrics")}
    assert {"air_build_info", "process_cpu_seconds_total", "process_open_fds"} <= names
    assert "# TYPE air_build_info gauge\n" in air.ok("metrics")
    assert air.json("config")["node.data"] == {"value": str(air.data), "source": "--data"}


def test_nobody_else_can_read_what_the_daemon_keeps(air: Air) -> None:
    assert stat.S_IMODE(air.data.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in air.data.iterdir()}
    assert {"admin.token", "daemon.json", "identity.key"} <= set(modes)
    assert {name for name, mode in modes.items() if mode & 0o077} == set()


def test_a_second_daemon_on_the_folder_says_who_holds_it_and_harms_nothing(air: Air) -> None:
    assert air.process is not None
    before = (air.data / "daemon.json").read_bytes()
    error = air.fails(1, "run", "--port", "0", "--admin", "127.0.0.1:0")
    assert f"process {air.process.pid}" in error
    assert str(air.data) in error
    assert (air.data / "daemon.json").read_bytes() == before
    assert air.json("health")["status"] == "ok"


def test_a_client_command_loads_none_of_the_daemons_libraries(air: Air) -> None:
    script = (
        "import sys; from air.daemon.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'anyio', 'trio', 'asyncio', 'starlette', 'hypercorn', 'apsw', 'orjson', 'websockets',"
        "'cryptography', 'prometheus_client', 'uvloop'}; print(code, sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, "id", "--data", str(air.data)]
    out = subprocess.run(command, env=air.environ, capture_output=True, check=True).stdout.decode()
    assert out.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "stop"])
def test_a_stopped_daemon_exits_0_and_its_data_is_there_again(
    tmp_path: Path, backend: str, how: signal.Signals | str
) -> None:
    with daemon(tmp_path, "--backend", backend) as air:
        air.ok("put", "kept", "a=1")
        watch = air.popen("watch", "kept", "--data", str(air.data))
        assert watch.stdout is not None
        assert watch.stdout.readline() == b"a: 1\n"
        assert air.process is not None
        if isinstance(how, str):
            assert air.json("stop") == {"stopped": True}
        else:
            air.process.send_signal(how)
        assert air.end() == (0, b"")
        assert watch.wait(DEADLINE_SECONDS) == 1
        assert watch.communicate()[1] == b"air: the daemon has ended the watch\n"
        air.fails(4, "get", "kept")
        assert not (air.data / "daemon.json").exists()
        peer = (air.ready or {})["peer"]
        air.start("--backend", backend)
        assert (air.ready or {})["peer"] == peer
        assert air.json("get", "kept") == {"a": 1}


def test_a_killed_daemon_leaves_its_data_and_no_trap(tmp_path: Path) -> None:
    with daemon(tmp_path) as air:
        air.ok("put", "kept", "a=1")
        assert air.process is not None
        air.process.kill()
        air.end()
        assert (air.data / "daemon.json").exists()
        air.fails(4, "get", "kept")
        air.start()
        assert air.json("get", "kept") == {"a": 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_signal_ends_a_daemon_that_is_still_draining(tmp_path: Path, backend: str) -> None:
    with daemon(tmp_path, "--backend", backend) as air:
        assert air.process is not None
        assert air.ready is not None
        token = (air.data / "admin.token").read_text().strip()
        host, port = air.ready["admin"].split("//")[1].split(":")
        with socket.create_connection((host, int(port))) as busy:
            head = f"PUT /v1/node?soul=a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            busy.sendall(f"{head}Content-Length: 10\r\nExpect: 100-continue\r\n\r\n".encode())
            assert b" 100 " in busy.recv(1000)  # the request is under way, and will not end by itself
            air.process.send_signal(signal.SIGTERM)
            assert air.process.stderr is not None
            while b"stopping" not in air.process.stderr.readline():
                pass
            air.process.send_signal(signal.SIGTERM)
            assert air.process.wait(DEADLINE_SECONDS) == 128 + signal.SIGTERM


def test_a_daemon_of_memory_forgets_and_is_alone_on_its_folder_too(tmp_path: Path) -> None:
    with daemon(tmp_path, "--set", "store.engine=memory") as air:
        air.ok("put", "a", "b=1")
        assert air.json("get", "a") == {"b": 1}
        assert "is held by process" in air.fails(1, "--port", "0", "--admin", "127.0.0.1:0")
        air.ok("stop")
        air.end()
        air.start("--set", "store.engine=memory")
        air.fails(3, "get", "a")


def test_daemons_that_are_peers_list_each_other_and_share_their_graph(tmp_path: Path) -> None:
    with daemon(tmp_path / "one") as one:
        assert one.ready is not None
        with daemon(tmp_path / "two", "--backend", "trio", "--peer", one.ready["gun"][0]) as two:
            until(lambda: [link["role"] for link in two.json("peers")] == ["outbound"])
            until(lambda: [link["role"] for link in one.json("peers")] == ["inbound"])
            assert one.ready["gun"][0] in two.ok("peers")
            one.ok("put", "shared", "a=1")
            assert two.json("get", "shared") == {"a": 1}
            two.ok("put", "shared", "b=2")
            until(lambda: one.json("get", "shared") == {"a": 1, "b": 2})


def test_people_get_their_addresses_without_json(tmp_path: Path) -> None:
    air = Air(tmp_path)
    process = air.popen("--data", str(air.data), "--port", "0", "--admin", "127.0.0.1:0")
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(5)]
        assert lines[0].startswith("Air ")
        assert "ws://127.0.0.1:" in lines[1]
        assert "/ip4/127.0.0.1/tcp/" in lines[2]
        assert "http://127.0.0.1:" in lines[3]
        assert str(air.data) in lines[4]
    finally:
        process.terminate()
        process.communicate()


def test_a_daemon_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    air = Air(tmp_path)
    free = ["--port", "0", "--admin", "127.0.0.1:0"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "in use" in air.fails(1, "run", "--port", port, "--admin", "127.0.0.1:0")
        assert "in use" in air.fails(1, "run", "--port", "0", "--admin", f"127.0.0.1:{port}")
    assert "allow_remote" in air.fails(1, "run", "--port", "0", "--admin", "0.0.0.0:0")
    assert "gun.port" in air.fails(2, "run", "--port", "http")
    (air.data / "identity.key").chmod(0o640)
    assert "chmod 600" in air.fails(1, "run", *free)
    (air.data / "identity.key").chmod(0o600)
    (air.data / "admin.token").write_text("short")
    assert "token" in air.fails(1, "run", *free)
    assert not (air.data / "daemon.json").exists()


def test_a_reader_that_has_seen_enough_is_no_failure(air: Air) -> None:
    air.ok("put", "many", *[f"k{i}={'x' * 1000}" for i in range(100)])
    reading = air.popen("get", "many", "--data", str(air.data))
    assert reading.stdout is not None
    reading.stdout.close()
    assert reading.wait(DEADLINE_SECONDS) == 0
    assert reading.stderr is not None
    assert reading.stderr.read() == b""
