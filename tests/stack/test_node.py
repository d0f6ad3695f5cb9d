"""Whole nodes: composition, presets, plug-ins, examples, and the two commands around them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import anyio
import pytest

from air.base.address import Multiaddr
from air.base.errors import Closed, ConfigError, Misuse, Unreachable
from air.base.keys import Identity
from air.mux.mplex.conn import Mplex
from air.mux.yamux.conn import Yamux
from air.node import plugins, presets
from air.node.node import Node
from air.protocols import Echo, Identify, Ping
from air.security.noise import Noise
from air.security.plaintext import Plaintext
from air.security.psk import PreSharedKey
from air.security.tls import Tls
from air.swarm.stream import Stream
from air.swarm.swarm import SwarmConfig
from air.swarm.upgrade import UpgradeConfig
from air.transport.tcp_transport import Tcp
from air.transport.ws_transport import WebSocket

ROOT = Path(__file__).parent.parent.parent
TCP, WS = "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"


def node(*services: Any, listen: tuple[str, ...] = (), **parts: Any) -> Node:
    return Node(
        Identity.generate(),
        parts.pop("transports", [Tcp(), WebSocket()]),
        parts.pop("security", [Noise()]),
        parts.pop("muxers", [Yamux()]),
        services,
        listen,
        **parts,
    )


@pytest.mark.anyio
@pytest.mark.parametrize("muxer", [Yamux, Mplex])
@pytest.mark.parametrize("security", [Noise, Tls, Plaintext])
@pytest.mark.parametrize("listen", [TCP, WS])
async def test_every_combination_of_layers_carries_streams(muxer: Any, security: Any, listen: str) -> None:
    ping = Ping()
    parts: dict[str, Any] = {"muxers": [muxer()], "security": [security()]}
    async with node(Ping(), Echo(), listen=(listen,), **parts) as ann, node(ping, **parts) as bob:
        session = await bob.dial(ann.addresses[0])
        assert (session.security, session.muxer) == (security().protocol, muxer().protocol)
        assert len(await ping.ping(session, 3)) == 3
        async with await bob.open_stream(ann.peer, "/echo/1.0.0") as stream:
            await stream.send(b"x" * 300_000)
            await stream.send_eof()
            got = 0
            while got < 300_000:
                got += len(await stream.receive())


@pytest.mark.anyio
async def test_the_dialler_chooses_among_what_both_have() -> None:
    both: dict[str, Any] = {"security": [Plaintext(), Noise()], "muxers": [Mplex(), Yamux()]}
    async with node(listen=(TCP,), **both) as ann:
        for security, muxers in (([Noise()], [Yamux(), Mplex()]), ([Plaintext(), Noise()], [Mplex()])):
            async with node(security=security, muxers=muxers) as bob:
                session = await bob.dial(ann.addresses[0])
                assert session.security == security[0].protocol  # type: ignore[attr-defined]
                assert session.muxer == muxers[0].protocol  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_without_a_common_layer_the_reason_is_named() -> None:
    async with node(listen=(TCP,)) as ann, node(security=[Plaintext()]) as bob:
        with pytest.raises(Unreachable):
            await bob.dial(ann.addresses[0])
        careful = SwarmConfig(upgrade=UpgradeConfig(guess=False))
        async with node(security=[Plaintext()], config=careful) as dan:
            with pytest.raises(Unreachable) as caught:
                await dan.dial(ann.addresses[0])
            assert "upgrade.no-security" in str(caught.value.attempts)
        async with node(muxers=[Mplex()]) as cat:
            session = await cat.dial(ann.addresses[0])
            # The only muxer is taken for granted, so this shows at the first use.
            with pytest.raises(Closed) as failed:
                await (await session.open_stream("/x")).receive()
            assert failed.value.code in ("upgrade.no-muxer", "link.reset")


@pytest.mark.anyio
async def test_members_of_a_private_network_understand_only_each_other() -> None:
    key, other = PreSharedKey(b"\x03" * 32), PreSharedKey(b"\x04" * 32)
    ping = Ping()
    async with node(Ping(), listen=(TCP,), network=key) as ann:
        async with node(ping, network=key) as bob:
            assert await ping.ping(await bob.dial(ann.addresses[0]))
        for network in (other, None):
            async with node(network=network) as eve:
                with pytest.raises(Unreachable):
                    await eve.dial(ann.addresses[0])


@pytest.mark.anyio
async def test_a_node_says_where_it_is_and_what_it_speaks() -> None:
    async with node(Ping(), Identify(), listen=(TCP, WS, "/ip4/0.0.0.0/tcp/0")) as ann:
        assert all(address.peer == ann.peer for address in ann.addresses)
        assert not any("/0.0.0.0/" in str(address) for address in ann.addresses)
        assert [address.names for address in ann.addresses[:2]] == [
            ("ip4", "tcp", "p2p"),
            ("ip4", "tcp", "ws", "p2p"),
        ]
        assert ann.protocols == ("/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0")
        assert ann.sessions == ()


@pytest.mark.anyio
async def test_a_listen_address_without_a_transport_stops_the_node_before_it_starts() -> None:
    with pytest.raises(ConfigError) as caught:
        async with node(listen=(WS,), transports=[Tcp()]):
            raise AssertionError
    assert caught.value.code == "config.no-transport"


@pytest.mark.parametrize(
    ("listen", "code"),
    [(TCP, "config.bad-address"), (["nonsense"], "address.bad-text"), (["/x/1"], "address.unknown-protocol")],
)
def test_listen_addresses_that_are_none_are_refused_when_the_node_is_made(listen: Any, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Node(Identity.generate(), [Tcp()], [Noise()], [Yamux()], listen=listen)
    assert caught.value.code == code


def test_a_node_without_security_or_muxer_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigError):
        node(security=[])
    with pytest.raises(ConfigError):
        node(muxers=[Yamux(), Yamux()])


@pytest.mark.anyio
async def test_two_services_cannot_serve_one_protocol() -> None:
    with pytest.raises(Misuse, match="handler"):
        async with node(Ping(), Ping()):
            raise AssertionError


class Failing:
    """A service that works for a moment."""

    def __init__(self) -> None:
        self.broken = anyio.Event()

    @property
    def handlers(self) -> dict[str, Any]:
        return {"/fleeting/1": self.serve}

    async def serve(self, stream: Stream) -> None:
        raise AssertionError

    async def run(self, host: Any, *, task_status: Any) -> None:
        task_status.started()
        await self.broken.wait()
        raise RuntimeError("a bug")


@pytest.mark.anyio
async def test_a_service_that_breaks_does_not_take_the_node_with_it() -> None:
    failing, ping = Failing(), Ping()
    async with node(Ping(), failing, listen=(TCP,)) as ann, node(ping) as bob:
        assert "/fleeting/1" in ann.protocols
        failing.broken.set()
        await anyio.wait_all_tasks_blocked()
        assert "/fleeting/1" not in ann.protocols
        assert await ping.ping(await bob.dial(ann.addresses[0]))


@pytest.mark.anyio
async def test_an_error_inside_the_block_comes_out_as_it_is_and_the_node_ends() -> None:
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with node(listen=(TCP,)) as ann:
            address = ann.addresses[0]
            raise mine
    assert caught.value is mine
    several = ExceptionGroup("several", [KeyError("a"), KeyError("b")])
    with pytest.raises(ExceptionGroup) as many:
        async with node():
            raise several
    assert many.group_contains(KeyError, match="b")
    async with node() as bob:
        with pytest.raises(Unreachable):
            await bob.dial(address)


@pytest.mark.anyio
async def test_presets_are_nodes_as_one_would_write_them(tmp_path: Path) -> None:
    ping = Ping()
    async with presets.peer(tmp_path / "air.key", [TCP, WS], Echo()) as ann:
        assert "/echo/1.0.0" in ann.protocols
        first = ann.peer
        async with Node(Identity.generate(), presets.transports(), [Noise()], [Yamux()], [ping]) as bob:
            for address in ann.addresses:
                assert await ping.ping(await bob.dial(address))
        async with presets.client() as cat:
            assert (await cat.dial(ann.addresses[0])).peer == ann.peer
    assert presets.peer(tmp_path / "air.key").peer == first


@pytest.mark.anyio
async def test_a_stream_handler_knows_who_asks() -> None:
    seen: list[Any] = []

    async def handler(stream: Stream) -> None:
        seen.append((stream.peer, stream.protocol, stream.outbound))

    async with node(listen=(TCP,)) as ann, node() as bob:
        with ann.swarm.handle("/who/1", handler):
            async with await bob.open_stream((await bob.dial(ann.addresses[0])).peer, "/who/1") as stream:
                with pytest.raises(Exception):  # noqa: B017 - any end of the stream will do
                    await stream.receive()
        assert seen == [(bob.peer, "/who/1", False)]


# Plug-ins


def test_parts_of_other_packages_are_found_by_entry_point(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = EntryPoint("pigeon", "air.transport.tcp_transport:Tcp", "air.transports")
    broken = EntryPoint("broken", "air.no.such:Thing", "air.transports")
    # A module whose import ends the program, as a script without a guard does.
    script = EntryPoint("script", "air_script:Thing", "air.transports")
    (tmp_path / "air_script.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [e for e in (entry, broken, script) if e.group == group]
    )
    assert list(plugins.find("transports")) == ["broken", "pigeon", "script"]
    assert plugins.load("transports", "pigeon") is Tcp
    for kind, name, code in (
        ("transports", "pidgeon", "plugin.unknown"),
        ("transports", "broken", "plugin.broken"),
        ("transports", "script", "plugin.broken"),
        ("nonsense", "x", "plugin.no-kind"),
    ):
        with pytest.raises(ConfigError) as caught:
            plugins.load(kind, name)
        assert caught.value.code == code


# Examples and commands


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("custom_stack", 40, "HELLO"),
        ("custom_transport", 60, "ms to 12D3"),
        ("find_peers", 45, "the last one reads hello"),
    ],
)
def test_an_example_runs_and_is_short(name: str, lines: int, says: str, backend: str) -> None:
    script = ROOT / "examples" / f"{name}.py"
    assert len(script.read_text().splitlines()) <= lines
    done = subprocess.run(
        [sys.executable, script, backend], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


def air(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "air", *words], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if not code else done.stdout + done.stderr


@contextmanager
def listener(*options: str) -> Iterator[dict[str, Any]]:
    """``air interop listen`` in a process of its own; ends it by closing its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-m", "air", "interop", "listen", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_interop_listen_and_dial_speak_json_lines(backend: str) -> None:
    with listener(
        "--ws-port", "0", "--tcp-port", "0", "--muxer", "both", "--seed", "01" * 32, "--backend", backend
    ) as told:
        assert told["event"] == "listening"
        assert told["impl"] == "air"
        assert told["peer"] == "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
        assert {"/echo/1.0.0", "/perf/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"} <= set(told["protocols"])
        assert all(address.endswith("/p2p/" + told["peer"]) for address in told["addrs"])
        tcp, ws = told["addrs"]
        ops = "identify,ping,echo,half-close,reset,perf"
        options = ("--ops", ops, "--count", "20", "--bytes", "50000", "--up", "3000000", "--down", "2000000")
        options += ("--mplex-opens", "100")
        for address, muxer in ((tcp, "yamux"), (ws, "yamux"), (tcp, "mplex")):
            found = events(air("interop", "dial", address, *options, "--muxer", muxer, "--backend", backend))
            assert found[0]["event"] == "connected"
            assert found[0]["peer"] == told["peer"]
            assert found[0]["encryption"] == "/noise"
            assert muxer in found[0]["muxer"]
            assert found[0]["ms"] > 0
            assert [(one["event"], one["op"], one["ok"]) for one in found[1:]] == [
                ("result", op, True) for op in ops.split(",")
            ]
        failed = events(air("interop", "dial", tcp, "--ops", "ping,kad-get", code=1))
        assert [one["ok"] for one in failed[1:]] == [True, False]
        assert failed[2]["code"] == "kad.no-server"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_interop_puts_gets_provides_and_finds_through_a_server_of_the_dht(backend: str) -> None:
    options = ("--backend", backend)
    with listener("--dht", "server", *options) as first:
        server = first["addrs"][0]
        assert "/ipfs/kad/1.0.0" in first["protocols"]
        with listener("--dht", "server", "--bootstrap", server, *options) as second:
            said = ("--key", "/air/greeting", "--value", "hello", "--target", second["peer"])
            ops = ("--ops", "kad-put,kad-get,provide,find-providers,find-peer")
            connected, put, got, _, providers, found = events(
                air("interop", "dial", server, *ops, *said, *options)
            )
            assert connected["event"] == "connected"
            assert put["stored"] == 2
            assert got["value"] == "hello"
            assert len(providers["providers"]) == 1
            assert (found["peer"], [f"{one}/p2p/{found['peer']}" for one in found["addrs"]]) == (
                second["peer"],
                second["addrs"],
            )
            by_key = ("--ops", "find-peer", "--key", second["peer"])
            assert events(air("interop", "dial", server, *by_key, *options))[1]["peer"] == second["peer"]
            # Another one, through the other server.
            _, again, also = events(
                air("interop", "dial", second["addrs"][0], "--ops", "kad-get,find-providers", *said, *options)
            )
            assert again["value"] == "hello"
            assert also["providers"] == providers["providers"]
            missing = air("interop", "dial", server, "--ops", "kad-get", "--key", "/air/none", code=1)
            assert events(missing)[1]["code"] == "kad.not-found"


def test_a_reader_that_has_seen_enough_of_interop_is_no_failure() -> None:
    with listener() as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "air", "interop", "dial", told["addrs"][0], "--ops", "ping,ping"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (0, "")


def test_interop_ping_names_the_layer_that_fails() -> None:
    with listener() as told:
        (address,) = told["addrs"]
        good = events(air("interop", "ping", address, "--json"))
        assert [(one["layer"], one["ok"]) for one in good] == [
            (layer, True) for layer in ("transport", "security", "muxer", "identify", "ping")
        ]
        bare = str(Multiaddr(address).bare)
        other = f"{bare}/p2p/12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"
        for wrong, options, layer in (
            (other, (), "security"),
            (address, ("--security", "plaintext"), "security"),
            (address, ("--muxer", "mplex"), "muxer"),
            (f"{bare}/ws", (), "transport"),
            ("/ip4/127.0.0.1/udp/1/quic-v1", (), "address"),
        ):
            last = events(air("interop", "ping", wrong, "--json", "--timeout", "5000", *options, code=1))[-1]
            assert (last["layer"], last["ok"]) == (layer, False), last
            assert last["code"]
    assert "FAILED" in air("interop", "ping", address, code=1)


def test_the_stack_can_be_shown_and_wrong_words_are_refused() -> None:
    shown = json.loads(air("stack", "show", "--json"))
    assert shown["security"]["noise"] == "/noise"
    assert shown["muxers"]["yamux"] == "/yamux/1.0.0"
    assert "tcp" in shown["transports"]
    assert set(shown["plugins"]) == set(plugins.KINDS)
    assert "/noise" in air("stack", "show")
    air("stack", "hide", code=2)
    air("interop", code=2)
    air("interop", "dial", code=2)
    air("interop", "dial", "/ip4/127.0.0.1/tcp/1", "--ops", "sing", code=2)
    air("interop", "listen", "--seed", "xyz", code=2)
    assert "interop" in air("interop", "--help")
