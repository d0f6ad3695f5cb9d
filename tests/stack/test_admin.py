"""The admin interface over a real socket, on both event loops, before a hub that lives in memory."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from air.base.clock import SystemClock
from air.base.errors import AirError, ConfigError, Corrupt, Denied, Full, LimitReached, StoreError, Violation
from air.base.metrics import Counters
from air.daemon import admin, guard, stream
from air.daemon.admin import admin_app
from air.daemon.guard import is_own_host
from air.daemon.serve import bind, serving, url_of
from air.model.cell import Cell, Fields, Key, Soul
from air.model.lex import ALL, Lex
from air.model.value import Link, Value, unit_bytes
from air.node.config import AdminConfig

pytestmark = pytest.mark.anyio

TOKEN = "0123456789abcdef" * 4
SOULS = [
    "plain",
    "a/b//c",
    "/",
    "..",
    "a b+c&d=e?f#g%41",
    "größe",
    "😀/\U0001f600",
    "\ud800x",
    "\0",
    "x" * 4000,
]


@dataclass(frozen=True, slots=True)
class Receipt:
    state: float
    cells: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    id: int
    role: str
    address: str
    peer: str
    opened_seconds: float
    messages_in: int
    messages_out: int


class MemoryHub:
    """A graph in a dictionary, with the interface of the hub."""

    def __init__(self, page_fields: int = 100) -> None:
        self.peer_id = "12D3KooWMemory"
        self.counters = Counters()
        self.counters.describe("gun_messages", "Messages by kind.", "kind")
        self.counters.add("gun_messages", 3, 'od"d\\')
        self.counters.gauge("links", "Links open.", lambda: 2)
        self.nodes: dict[Soul, dict[Key, tuple[Value, float]]] = {}
        self.status = "ok"
        self.fails: AirError | Exception | None = None
        self.fails_after: int | None = None
        """Pages that go well before ``fails`` is raised; None: at once."""
        self.watchers: list[anyio.abc.ObjectSendStream[list[Cell]]] = []
        self.watching = 0
        self._page_fields, self._clock = page_fields, 1_700_000_000_000.5

    async def put(self, nodes: Mapping[Soul, Mapping[Key, Value]], /) -> Receipt:
        if self.fails is not None:
            raise self.fails
        self._clock += 1
        cells = [Cell(soul, key, value, self._clock) for soul, f in nodes.items() for key, value in f.items()]
        for cell in cells:
            self.nodes.setdefault(cell.soul, {})[cell.key] = (cell.value, cell.state)
        for watcher in self.watchers[:]:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                await watcher.send(cells)
        return Receipt(self._clock, len(cells))

    async def pages(self, soul: Soul, lex: Lex = ALL, /) -> AsyncIterator[Fields]:
        node = self.nodes.get(soul, {})
        keys = sorted((key for key in node if lex.holds(key)), key=unit_bytes, reverse=lex.reverse)
        for number, start in enumerate(range(0, len(keys), self._page_fields)):
            if self.fails is not None and number >= (self.fails_after or 0):
                raise self.fails
            await anyio.lowlevel.checkpoint()
            yield {key: node[key] for key in keys[start : start + self._page_fields]}

    @asynccontextmanager
    async def watch(self, soul: Soul, key: Key | None = None, /) -> AsyncIterator[AsyncIterator[list[Cell]]]:
        send, receive = anyio.create_memory_object_stream[list[Cell]](16)
        self.watchers.append(send)
        self.watching += 1
        now = [Cell(soul, k, *field) for k, field in self.nodes.get(soul, {}).items() if key in (None, k)]
        if now:
            await send.send(now)
        try:
            with send, receive:
                yield receive
        finally:
            self.watchers.remove(send)
            self.watching -= 1

    def links(self) -> list[LinkInfo]:
        return [LinkInfo(1, "inbound", "127.0.0.1:5", "peer", 1.5, 3, 4)]

    def health(self) -> Mapping[str, object]:
        return {"status": self.status, "store": {"engine": "memory"}, "links": 1}


@dataclass
class Served:
    """A running interface, and requests to it as a program would send them."""

    hub: MemoryHub
    host: str
    port: int
    url: str
    closing: anyio.Event
    stopped: list[bool] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    async def __call__(self, *args: Any, **kwargs: Any) -> tuple[int, Mapping[str, str], bytes]:
        return await anyio.to_thread.run_sync(lambda: self.ask(*args, **kwargs))

    async def code(self, *args: Any, **kwargs: Any) -> tuple[int, str]:
        status, headers, body = await self(*args, **kwargs)
        assert headers["content-type"] == "application/json"
        error = json.loads(body)["error"]
        assert error["message"]
        return status, error["code"]


def node(soul: str, **query: str) -> str:
    pairs = {"soul": soul, **query}
    return "/v1/node?" + "&".join(
        f"{name}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}" for name, value in pairs.items()
    )


Serve = Callable[..., Any]


@pytest.fixture
def served(anyio_backend: str) -> Serve:
    @asynccontextmanager
    async def serve(config: AdminConfig | None = None, page_fields: int = 100) -> AsyncIterator[Served]:
        config = config or AdminConfig(port=0)
        listener = bind(config)
        host, port = listener.getsockname()[:2]
        closing = anyio.Event()
        served = Served(MemoryHub(page_fields), host, port, url_of(listener), closing)
        app = admin_app(
            served.hub,
            config=config,
            token=TOKEN,
            bound=host,
            info={"peer": served.hub.peer_id, "admin": served.url},
            stop=lambda: served.stopped.append(True),
            closing=closing,
            clock=SystemClock(),
        )
        with anyio.fail_after(30):
            async with serving(app, listener, closing, backend=anyio_backend):
                yield served

    return serve


async def test_what_was_put_can_be_read_whatever_the_soul_is_called(served: Serve) -> None:
    fields = {"name": "Ann", "age": 7, "ok": True, "gone": None, "x": 1e21, "pi": 3.5, "friend": {"#": "😀"}}
    fields |= {"": "empty key", "größe/😀": "\ud800", "-0": -0.0}
    async with served() as ask:
        for soul in SOULS:
            for method in ("PUT", "POST"):
                status, _, body = await ask(method, node(soul), json.dumps(fields).encode())
                assert (status, json.loads(body)["cells"]) == (200, len(fields)), body
                assert json.loads(body)["soul"] == soul
            status, headers, body = await ask("GET", node(soul))
            assert (status, headers["content-type"]) == (200, "application/json")
            answer = json.loads(body)
            assert answer["soul"] == soul
            assert {k: f["value"] for k, f in answer["fields"].items()} == fields
            assert all(f["state"] > 1_700_000_000_000 for f in answer["fields"].values())
        assert ask.hub.nodes["plain"]["friend"][0] == Link("😀")
        assert set(ask.hub.nodes) == set(SOULS)


async def test_one_field_and_what_is_missing(served: Serve) -> None:
    async with served() as ask:
        await ask("PUT", node("ann"), b'{"name":"Ann","age":7}')
        _, _, body = await ask("GET", node("ann", key="name"))
        assert {k: f["value"] for k, f in json.loads(body)["fields"].items()} == {"name": "Ann"}
        assert await ask.code("GET", node("ann", key="nothing")) == (404, "node.not-found")
        assert await ask.code("GET", node("nobody")) == (404, "node.not-found")
        assert await ask.code("GET", "/v1/nowhere") == (404, "admin.no-such-path")
        assert await ask.code("DELETE", node("ann")) == (405, "admin.bad-method")


async def test_a_range_of_keys_is_read_in_either_direction(served: Serve) -> None:
    async with served(page_fields=2) as ask:
        await ask("PUT", node("n"), json.dumps({f"k{i}": i for i in range(10)} | {"z": 0}).encode())

        async def keys(**query: str) -> list[str]:
            _, _, body = await ask("GET", node("n", **query))
            return list(json.loads(body)["fields"])

        assert await keys(prefix="k", limit="3") == ["k0", "k1", "k2"]
        assert await keys(prefix="k", limit="4") == ["k0", "k1", "k2", "k3"]
        assert await keys(prefix="k", **{"from": "3", "to": "5"}) == ["k3", "k4", "k5"]
        assert await keys(limit="2", reverse="true") == ["z", "k9"]
        assert await keys(**{"from": "k8"}) == ["k8", "k9", "z"]
        assert len(await keys()) == 11


async def test_a_large_node_is_streamed_whole(served: Serve) -> None:
    async with served(page_fields=1000) as ask:
        ask.hub.nodes["big"] = {f"key{i:06}": ("x" * 40, 1.5) for i in range(20_000)}
        _, headers, body = await ask("GET", node("big"))
        assert "content-length" not in headers
        assert len(json.loads(body)["fields"]) == 20_000


async def test_a_node_that_breaks_off_says_so(served: Serve) -> None:
    async with served(page_fields=2) as ask:
        ask.hub.nodes["n"] = {f"k{i}": (i, 1) for i in range(10)}
        ask.hub.fails, ask.hub.fails_after = Corrupt("a bad page"), 2
        status, _, body = await ask("GET", node("n"))
        answer = json.loads(body)
        assert (status, len(answer["fields"]), answer["error"]["code"]) == (200, 4, "store.corrupt")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Full("no space"), 507, "store.full"),
        (Denied("no"), 403, "access.denied"),
        (Violation("bad", code="gun.bad"), 400, "gun.bad"),
        (LimitReached("many", code="limit.many"), 429, "limit.many"),
        (ConfigError("bad"), 400, "config.invalid"),
        (StoreError("broken"), 500, "store.error"),
        (RuntimeError("secret detail"), 500, "admin.internal"),
    ],
)
async def test_an_error_becomes_a_status_and_its_code(
    served: Serve, error: Exception, status: int, code: str
) -> None:
    async with served() as ask:
        ask.hub.fails = error
        ask.hub.nodes["n"] = {"k": (1, 1)}
        assert await ask.code("PUT", node("n"), b'{"k":1}') == (status, code)
        answer = await ask("GET", node("n"))
        assert answer[0] == status
        assert b"secret" not in answer[2]
        ask.hub.fails = None
        assert (await ask("PUT", node("n"), b'{"k":1}'))[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "admin.bad-json"),
        (b"{", 400, "admin.bad-json"),
        (b"[]", 400, "admin.bad-json"),
        (b"{}", 400, "admin.bad-json"),
        (b'{"a":NaN}', 400, "admin.bad-json"),
        (b'{"a":\xff}', 400, "admin.bad-json"),
        (b'{"a":' + b"9" * 5000 + b"}", 400, "admin.bad-json"),
        (b'{"a":' + b"[" * 200_000, 400, "admin.bad-json"),
        (b'{"a":1e999}', 400, "admin.bad-value"),
        (b'{"a":[1]}', 400, "admin.bad-value"),
        (b'{"a":{"b":1}}', 400, "admin.bad-value"),
        (b'{"a":{"#":""}}', 400, "admin.bad-value"),
        (json.dumps(dict.fromkeys(map(str, range(51)))).encode(), 413, "admin.too-many-fields"),
        (b'{"a":"' + b"x" * 400_000 + b'"}', 413, "admin.body-too-large"),
    ],
)
async def test_a_body_that_is_no_node_is_refused(served: Serve, body: bytes, status: int, code: str) -> None:
    config = AdminConfig(port=0, fields_max=50, body_bytes_max=300_000)
    async with served(config) as ask:
        assert await ask.code("PUT", node("n"), body) == (status, code)
        assert ask.hub.nodes == {}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/node",
        "/v1/node?soul=",
        "/v1/node?soul=a&soul=b",
        "/v1/node?soul=a&limits=1",
        "/v1/node?soul=%FF",
        "/v1/node?soul=a&limit=0",
        "/v1/node?soul=a&limit=x",
        "/v1/node?soul=a&limit=" + "9" * 17,
        "/v1/node?soul=a&reverse=maybe",
        "/v1/node?soul=a&key=b&prefix=c",
        "/v1/watch",
        "/v1/node?" + "&".join(["soul=a"] * 50),
    ],
)
async def test_a_query_that_cannot_be_meant_is_refused(served: Serve, path: str) -> None:
    async with served() as ask:
        assert await ask.code("GET", path) == (400, "admin.bad-query")


async def test_nothing_but_the_bare_health_is_told_without_the_token(served: Serve) -> None:
    async with served() as ask:
        assert json.loads((await ask("GET", "/health", token=None))[2]) == {"status": "ok"}
        assert json.loads((await ask("GET", "/health"))[2])["store"] == {"engine": "memory"}
        paths = [("GET", p) for p in (node("n"), "/v1/watch?soul=n", "/v1/peers", "/v1/id", "/metrics", "/x")]
        for method, path in [*paths, ("PUT", node("n")), ("POST", "/v1/stop"), ("POST", "/health")]:
            status, headers, _ = await ask(method, path, b"{}" if method == "PUT" else None, token=None)
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
            for wrong in ("", "x", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "\xe9"):
                code = (await ask.code(method, path, token=wrong))[1]
                assert code == ("admin.bad-token" if wrong else "admin.no-token")
        assert await ask.code("GET", "/health", token="wrong") == (401, "admin.bad-token")
        assert ask.stopped == []


async def test_an_unwell_daemon_answers_its_health_with_503(served: Serve) -> None:
    async with served() as ask:
        ask.hub.status = "degraded"
        status, _, body = await ask("GET", "/health", token=None)
        assert (status, json.loads(body)) == (503, {"status": "degraded"})


async def test_a_name_that_was_made_to_point_here_is_refused(served: Serve) -> None:
    async with served() as ask:
        for host in ("evil.example", "evil.example:80", f"127.0.0.1.evil.example:{ask.port}", "", "10.0.0.1"):
            answer = await ask.code("GET", "/health", headers={"Host": host})
            assert answer == (403, "admin.foreign-host"), host
        for host in ("localhost", f"LOCALHOST:{ask.port}", "127.0.0.1", "[::1]:1", "localhost."):
            assert (await ask("GET", "/health", headers={"Host": host}))[0] == 200, host


async def test_a_page_of_another_origin_is_refused(served: Serve) -> None:
    async with served() as ask:
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{ask.port + 1}", "file://"):
            answer = await ask.code("POST", "/v1/stop", headers={"Origin": origin})
            assert answer == (403, "admin.foreign-origin"), origin
        assert ask.stopped == []
        own = {"Origin": f"http://127.0.0.1:{ask.port}"}
        status, headers, _ = await ask("GET", "/v1/id", headers=own)
        assert status == 200
        assert not [name for name in headers if name.startswith("access-control")]


def test_only_names_that_nobody_else_can_point_here_are_ours() -> None:
    assert is_own_host("10.1.2.3:8766", "10.1.2.3")
    assert is_own_host("10.1.2.3:8766", "0.0.0.0")
    assert is_own_host("[fe80::1]:8766", "::")
    assert is_own_host("air.example", "0.0.0.0", ["Air.example"])
    assert not is_own_host("air.example", "0.0.0.0")
    assert not is_own_host("10.1.2.4", "10.1.2.3")
    assert not is_own_host("", "0.0.0.0")


async def test_a_watch_tells_what_is_there_then_what_changes_then_ends_with_the_daemon(served: Serve) -> None:
    async with served(AdminConfig(port=0, heartbeat_seconds=0.05)) as ask:
        await ask("PUT", node("n/1"), b'{"a":1}')
        lines: list[dict[str, Any]] = []

        def watch() -> None:
            connection = http.client.HTTPConnection(ask.host, ask.port, timeout=10)
            path = "/v1/watch?" + urlencode({"soul": "n/1"})
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            assert response.getheader("content-type") == "application/x-ndjson"
            while line := response.readline():
                lines.append(json.loads(line))
            connection.close()

        def seen(key: str, value: object) -> bool:
            return any(line.get("key") == key and line["value"] == value for line in lines)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, watch)
            await until(lambda: seen("a", 1))
            await ask("PUT", node("n/1"), '{"b":"😀"}'.encode())
            await until(lambda: seen("b", "😀"))
            await until(lambda: any("heartbeat" in line for line in lines))
            ask.closing.set()
        await until(lambda: ask.hub.watching == 0)


async def test_a_watcher_that_goes_is_forgotten_and_too_many_are_refused(served: Serve) -> None:
    async with served(AdminConfig(port=0, watches_max=2)) as ask:
        sockets = [open_watch(ask) for _ in range(2)]
        await until(lambda: ask.hub.watching == 2)
        assert await ask.code("GET", "/v1/watch?soul=n") == (503, "admin.too-many-watches")
        for one in sockets:
            one.close()
        await until(lambda: ask.hub.watching == 0)
        open_watch(ask).close()


async def test_a_watcher_that_never_reads_is_cut(served: Serve) -> None:
    async with served(AdminConfig(port=0, unread_seconds=0.5)) as ask:
        watcher = open_watch(ask)
        await until(lambda: ask.hub.watching == 1)
        text = json.dumps({"a": "x" * 1_000_000}).encode()
        with anyio.move_on_after(20) as scope:
            while ask.hub.watching:
                # Once the watcher's queue is full our own puts wait for it, as no real hub's would.
                with anyio.move_on_after(0.2):
                    await ask.hub.put({"n": {"a": text.decode()}})
                await anyio.sleep(0.05)
        assert not scope.cancelled_caught
        watcher.close()


async def test_a_body_nobody_wants_leaves_no_connection_behind(served: Serve) -> None:
    async with served(AdminConfig(port=0, body_bytes_max=10_000)) as ask:
        tasks_before = open_connections(ask.port)
        for path, token in ((node("n"), None), (node("n"), TOKEN), ("/v1/id", TOKEN)):
            for _ in range(3):
                with socket.create_connection((ask.host, ask.port)) as raw:
                    await anyio.to_thread.run_sync(shout, raw, path, token)
        await until(lambda: open_connections(ask.port) <= tasks_before)
        assert (await ask("GET", "/v1/id"))[0] == 200


def shout(raw: socket.socket, path: str, token: str | None) -> None:
    """Send far more than anybody asked for, whatever the answer is."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n"
    head += f"Authorization: Bearer {token}\r\n\r\n" if token else "\r\n"
    raw.settimeout(5)
    try:
        raw.sendall(head.encode())
        for _ in range(50):
            raw.sendall(b"x" * 1_000_000)
        while raw.recv(65536):
            pass
    except OSError:
        pass  # cut, as it should be


async def test_a_connection_serves_many_requests_and_does_not_hold_up_the_end(served: Serve) -> None:
    async with served() as ask:
        await ask("PUT", node("n"), b'{"a":1}')
        connection = http.client.HTTPConnection(ask.host, ask.port, timeout=10)
        ports: set[int] = set()

        def many() -> None:
            for path in [node("n"), "/v1/id", "/v1/nowhere", node("n"), node("nobody"), "/health"] * 5:
                connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
                connection.getresponse().read()
                ports.add(connection.sock.getsockname()[1])

        await anyio.to_thread.run_sync(many)
        assert len(ports) == 1  # it was never opened anew
        started = anyio.current_time()
    assert anyio.current_time() - started < 1
    connection.close()


async def test_a_body_that_dawdles_is_cut(served: Serve) -> None:
    async with served(AdminConfig(port=0, body_seconds=0.2)) as ask:
        with socket.create_connection((ask.host, ask.port)) as raw:
            raw.sendall(
                f"PUT {node('n')} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
                "Content-Length: 10\r\n\r\n{".encode()
            )
            raw.settimeout(10)
            assert b" 408 " in await anyio.to_thread.run_sync(raw.recv, 65536)


async def test_a_websocket_is_refused(served: Serve) -> None:
    async with served() as ask:
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
        assert (await ask("GET", "/v1/watch?soul=n", headers=upgrade))[0] == 403


async def test_the_rest_of_the_interface(served: Serve) -> None:
    async with served() as ask:
        _, _, body = await ask("GET", "/v1/peers")
        assert json.loads(body)["peers"][0]["role"] == "inbound"
        _, _, body = await ask("GET", "/v1/id")
        assert json.loads(body) == {"peer": "12D3KooWMemory", "admin": ask.url}
        _, headers, body = await ask("GET", "/metrics")
        assert headers["content-type"].startswith("text/plain")
        lines = body.decode().splitlines()
        assert 'air_gun_messages_total{kind="od\\"d\\\\"} 3.0' in lines
        assert "air_links 2.0" in lines
        assert any(line.startswith("process_cpu_seconds_total ") for line in lines)
        assert any(line.startswith("air_build_info{version=") for line in lines)
        status, _, body = await ask("POST", "/v1/stop")
        assert (status, json.loads(body), ask.stopped) == (202, {"stopping": True}, [True])


def test_the_manual_names_every_code_and_path() -> None:
    page = (Path(__file__).parents[2] / "docs" / "admin-api.md").read_text(encoding="utf-8")
    sources = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (admin, guard, stream)]
    found = set(re.findall(r'"((?:admin|node)\.[a-z-]+)"|Route\("(/[a-z0-9/]+)"', "".join(sources)))
    names = {code or path for code, path in found} - {"admin.refused"}
    assert len(names) > 15
    assert {name for name in names if name not in page} == set()


def test_an_address_that_others_can_reach_needs_permission() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError) as refused:
            bind(AdminConfig(host=host, port=0))
        assert refused.value.code == "admin.not-loopback"
    with bind(AdminConfig(host="0.0.0.0", port=0, allow_remote=True)) as listener:
        assert url_of(listener).startswith("http://0.0.0.0:")


def test_an_address_that_is_taken_is_named() -> None:
    with bind(AdminConfig(port=0)) as first, pytest.raises(ConfigError, match="in use") as refused:
        bind(AdminConfig(port=first.getsockname()[1]))
    assert refused.value.code == "admin.cannot-bind"


def open_watch(ask: Served) -> socket.socket:
    raw = socket.create_connection((ask.host, ask.port))
    raw.sendall(
        f"GET /v1/watch?soul=n HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    return raw


def open_connections(port: int) -> int:
    import psutil

    mine = psutil.Process().net_connections("tcp")
    return sum(1 for one in mine if one.laddr.port == port and one.status != psutil.CONN_LISTEN)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition with a deadline."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("CRITICAL", logger="air"):
        yield
