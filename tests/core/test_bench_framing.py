"""The load generator's frames, messages and counting, checked against real counterparts. (core)"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from air.base.errors import Unreachable, Violation
from bench.client import connect
from bench.framing import (
    CLOSE,
    PING,
    TEXT,
    MessageReader,
    encode_frame,
    read_upgrade,
    scan,
    server_frame,
    split,
    upgrade_request,
)
from bench.load import Load, LoadConfig
from bench.messages import ACK_IDS, get_plan, new_mark, put_plan, random_ids, value_finder, value_of
from bench.report import table
from bench.rows import ROWS
from bench.tally import Window, count_answers, count_deliveries, percentile

KEY = b"\x01\x82\x7f\xfe"
sizes = st.sampled_from([0, 1, 3, 4, 125, 126, 127, 65_535, 65_536, 70_000])
texts = st.text(st.characters(codec="ascii"), max_size=200)


def feed_to_websockets(frame: bytes) -> list[Frame]:
    server = ServerProtocol(state=OPEN, max_size=None)
    server.receive_data(frame)
    return [event for event in server.events_received() if isinstance(event, Frame)]


@given(sizes, st.binary(min_size=4, max_size=4))
def test_a_websocket_server_reads_the_frames_we_mask(size: int, key: bytes) -> None:
    payload = (b"0123456789" * (size // 10 + 1))[:size]
    (frame,) = feed_to_websockets(encode_frame(payload, key))
    assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode.TEXT, payload, True)


@given(st.lists(st.one_of(texts.map(str.encode), sizes.map(lambda size: b"x" * size)), max_size=6))
def test_server_frames_are_those_of_the_websockets_library(payloads: list[bytes]) -> None:
    for payload in payloads:
        assert server_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    joined = b"".join(map(server_frame, payloads))
    assert scan(joined) == (len(joined), True)
    assert split(joined) == [(True, TEXT, payload) for payload in payloads]


@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_frames_do_not_depend_on_how_bytes_arrive(sent: list[str], data: st.DataObject) -> None:
    stream = b"".join(server_frame(one.encode()) for one in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    rest, got = b"", []
    for start, end in pairwise([0, *cuts, len(stream)]):
        rest += stream[start:end]
        used, _ = scan(rest)
        got += split(rest[:used])
        rest = rest[used:]
    assert rest == b""
    assert got == [(True, TEXT, one.encode()) for one in sent]


def test_fragments_are_joined_and_control_frames_pass_between_them() -> None:
    reader = MessageReader()
    first = Frame(Opcode.TEXT, b"ab", fin=False).serialize(mask=False)
    ping = Frame(Opcode.PING, b"p").serialize(mask=False)
    last = Frame(Opcode.CONT, b"cd").serialize(mask=False)
    assert scan(first + ping + last) == (len(first + ping + last), False)
    assert reader.receive(first) == []
    assert reader.receive(ping + last) == [(PING, b"p"), (TEXT, b"abcd")]


@pytest.mark.parametrize("opcodes", [(Opcode.CONT,), (Opcode.TEXT, Opcode.TEXT)])
def test_fragments_out_of_order_are_refused(opcodes: tuple[Opcode, ...]) -> None:
    frames = b"".join(Frame(opcode, b"x", fin=False).serialize(mask=False) for opcode in opcodes)
    with pytest.raises(Violation) as caught:
        MessageReader().receive(frames)
    assert caught.value.code == "ws.fragment"


def test_a_masked_server_frame_is_refused() -> None:
    with pytest.raises(Violation) as caught:
        scan(encode_frame(b"hello", KEY))
    assert caught.value.code == "ws.masked"


def test_the_upgrade_is_the_one_of_a_real_server() -> None:
    request, accept = upgrade_request("127.0.0.1:1", "/gun", bytes(range(16)))
    server = ServerProtocol()
    server.receive_data(request)
    (event,) = server.events_received()
    server.send_response(server.accept(event))  # type: ignore[arg-type]
    answer = b"".join(server.data_to_send())
    assert read_upgrade(answer + b"\x81\x00", accept) == len(answer)
    assert all(read_upgrade(answer[:end], accept) is None for end in range(len(answer)))


@pytest.mark.parametrize("status", [b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 101 Switching Protocols"])
def test_a_wrong_answer_to_the_upgrade_is_refused(status: bytes) -> None:
    with pytest.raises(Violation) as caught:
        read_upgrade(status + b"\r\nSec-WebSocket-Accept: wrong\r\n\r\n", b"right")
    assert caught.value.code == "ws.bad-handshake"


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("soul", [None, b"room/one"])
def test_a_put_plan_holds_each_message_once_in_frames_below_30_kb(batch: bool, soul: bytes | None) -> None:
    mark = new_mark()
    plan = put_plan(300, mark=mark, first=40, wall_ms=1_700_000_000_000.5, batch=batch, soul=soul)
    messages = []
    for frame in plan.frames:
        assert len(frame) < 30_000
        (read,) = feed_to_websockets(frame)
        value = orjson.loads(read.data)
        messages += value if batch else [value]
        assert isinstance(value, list) is batch
    assert [one["#"].encode() for one in messages] == plan.ids
    assert len(set(plan.ids)) == 300
    assert len(set(plan.keys if soul else plan.souls)) == 300
    for at, one in enumerate(messages):
        ((name, node),) = one["put"].items()
        key = plan.keys[at].decode()
        assert name.encode() == plan.souls[at]
        assert node == {
            "_": {"#": name, ">": {key: 1_699_999_999_995}},
            key: value_of(mark, 40 + at).decode(),
        }


def test_a_get_plan_asks_for_whole_nodes() -> None:
    plan = get_plan([b"a", b"b"], [0, 1], batch=True)
    (frame,) = feed_to_websockets(plan.frames[0])
    assert [one["get"] for one in orjson.loads(frame.data)] == [{"#": "a"}, {"#": "b"}]


def test_ids_are_nine_characters_that_gun_uses() -> None:
    ids = random_ids(5_000)
    assert len(set(ids)) == 5_000
    assert all(len(one) == 9 and one.isalnum() and b"Y" not in one for one in ids)


def test_answers_and_values_are_found_without_parsing() -> None:
    mark = new_mark()
    data = orjson.dumps({"#": "x", "@": "abcdefghi", "ok": {"@": 2, "/": 3}, "t": value_of(mark, 7).decode()})
    assert ACK_IDS.findall(data) == [b"abcdefghi"]
    assert value_finder(mark).findall(data) == [b"0000007"]


def test_only_first_answers_inside_the_window_count() -> None:
    ids = [b"a", b"b", b"c", b"d"]
    got = [(1.5, [b"a"]), (2.5, [b"b", b"a", b"unasked"]), (2.75, [b"b", b"c"]), (9.0, [b"d"])]
    assert count_answers([(1.0, 0, 2), (2.0, 2, 4)], got, ids, Window(2.0, 3.0)) == [1500.0, 750.0]


def test_missing_and_repeated_deliveries_are_told_apart() -> None:
    got = [(1.5, [b"0000000", b"0000001"]), (2.5, [b"0000001"])]
    counted = count_deliveries([(1.0, 0, 3)], got, Window(1.0, 2.0), latencies=True)
    assert counted == (1, 1, 2, [500.0, 500.0])


def test_percentiles_are_by_nearest_rank() -> None:
    assert [percentile(range(100), part) for part in (0.0, 0.5, 0.99, 1.0)] == [0, 50, 99, 99]
    assert percentile([], 0.5) != percentile([], 0.5)


def test_the_table_says_what_was_missed_lost_or_saturated() -> None:
    def side(rate: float, share: float = 0.1) -> list[dict[str, object]]:
        numbers = {"rate": rate, "cpu_us": 10, "p50_ms": 1, "p99_ms": 30, "generator_share": share}
        return [{**numbers, "notes": ["3 of 9 never answered"]}]

    text = table([(ROWS[0], {"stock": side(1_000), "air": side(31_000, 0.95)})])
    assert "31.0x" in text
    assert ">= 30x met, p99 <= 25 ms MISSED" in text
    assert "put-64, stock, round 1: 3 of 9 never answered" in text
    assert "put-64, air, round 1: generator saturated (95% of a core)" in text


SHARED: dict[str, dict[str, object]] = {}
"""What the small relay below keeps, for all of its connections."""


async def _forgetful(socket: ServerConnection) -> None:
    """A small relay that keeps puts, answers gets, pings, and never acknowledges every tenth put."""
    count = 0
    await socket.send('{"#":"hello0000","dam":"?","pid":"relay0000"}')
    await socket.ping()
    async for text in socket:
        value = orjson.loads(text)
        for one in value if isinstance(value, list) else [value]:
            if "put" in one:
                count += 1
                SHARED.update(one["put"])
                if count % 10:
                    await socket.send(orjson.dumps({"@": one["#"], "#": "a", "ok": True}).decode())
            elif "get" in one:
                soul = one["get"]["#"]
                node = {"put": {soul: SHARED[soul]}} if soul in SHARED else {}
                await socket.send(orjson.dumps({"@": one["#"], "#": "b", **node}).decode())


def test_a_relay_that_forgets_acknowledgements_does_not_hang_a_load() -> None:
    async def run() -> None:
        config = LoadConfig(warm_seconds=0, quiet_seconds=0.2)
        async with serve(_forgetful, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/gun"
            async with Load(url, clients=2, config=config) as load:
                outcome = await load.puts(count=100, in_flight=100, batch=True)
                assert (outcome.sent, outcome.answered, outcome.missing) == (100, 90, 10)
                assert outcome.operations == 90 == len(load.ledger)
                check = await load.check(sample=50)
                assert (check.asked, check.equal, check.lost, check.wrong) == (50, 50, 0, 0)
                outcome = await load.gets(load.written(), count=60, in_flight=10)
                assert (outcome.answered, outcome.not_found, outcome.wrong) == (60, 0, 0)
                outcome = await load.puts(rate=50, seconds=0.1, batch=True)
                assert outcome.sent == 6
                soul, key, _ = load.written()[0]
                load.ledger[soul, key] = b"something else"
                assert (await load.check(sample=90)).wrong == 1

    asyncio.run(run())


def test_a_port_where_nobody_listens_is_unreachable() -> None:
    async def run() -> None:
        with pytest.raises(Unreachable):
            await connect("ws://127.0.0.1:1/gun", 2)

    asyncio.run(run())


def test_a_close_frame_is_masked_and_carries_its_code() -> None:
    (frame,) = feed_to_websockets(encode_frame((1000).to_bytes(2, "big"), KEY, CLOSE))
    assert (frame.opcode, bytes(frame.data)) == (Opcode.CLOSE, b"\x03\xe8")
