"""The WebSocket core, fed with bytes and a clock that is moved by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.base.errors import Closed, ConfigError, Misuse, Reset
from air.transport.http import HttpResponse, Request, plain
from air.transport.websocket.config import WebSocketConfig
from air.transport.websocket.core import Ended, Event, Opened, Text, WebSocketCore

CONFIG = WebSocketConfig(frame_bytes_max=2000, fragments_max=8, header_bytes_max=2000)
ASK = (
    b"GET /gun?x=1 HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n%s\r\n"
)
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    opcode: int, payload: bytes = b"", fin: bool = True, mask: bytes | None = b"\x01\x02\x03\x04"
) -> bytes:
    """A frame written by hand from RFC 6455, 5.2, so that the library does not check itself."""
    head = bytes([opcode | (0x80 if fin else 0)])
    bit = 0 if mask is None else 0x80
    size = len(payload)
    if size < 126:
        head += bytes([size | bit])
    elif size < 65536:
        head += bytes([126 | bit]) + struct.pack("!H", size)
    else:
        head += bytes([127 | bit]) + struct.pack("!Q", size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


def fresh(config: WebSocketConfig = CONFIG) -> tuple[WebSocketCore, ManualClock]:
    clock = ManualClock()
    return WebSocketCore(config, clock.now()), clock


def opened(config: WebSocketConfig = CONFIG) -> tuple[WebSocketCore, ManualClock]:
    core, clock = fresh(config)
    (request,) = core.receive(ASK % b"", clock.now())
    assert isinstance(request, Request)
    assert core.accept(clock.now()) == [Opened()]
    core.take_output()
    return core, clock


def output(core: WebSocketCore) -> bytes:
    return b"".join(core.take_output())


def pair(config: WebSocketConfig = CONFIG) -> tuple[WebSocketCore, WebSocketCore, ManualClock]:
    clock = ManualClock()
    server = WebSocketCore(config, clock.now())
    client = WebSocketCore(config, clock.now(), url="ws://here/gun")
    (request,) = server.receive(output(client), clock.now())
    assert isinstance(request, Request)
    assert server.accept(clock.now()) == [Opened()]
    assert client.receive(output(server), clock.now()) == [Opened()]
    return server, client, clock


def test_a_request_is_shown_with_its_headers_in_lower_case() -> None:
    core, clock = fresh()
    (request,) = core.receive(ASK % b"Origin: https://app\r\nX-A: 1\r\nX-A: 2\r\n", clock.now())
    assert isinstance(request, Request)
    assert (request.method, request.path, request.route) == ("GET", "/gun?x=1", "/gun")
    assert request.upgrade
    assert request.origin == "https://app"
    assert request.headers["x-a"] == "1, 2"


def test_the_upgrade_is_answered_with_the_key_of_the_rfc_and_no_extension() -> None:
    core, clock = fresh()
    asked = ASK.replace(b"AAAAAAAAAAAAAAAAAAAAAA==", b"dGhlIHNhbXBsZSBub25jZQ==") % b""
    core.receive(asked, clock.now())
    assert core.accept(clock.now()) == [Opened()]
    answer = output(core)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # RFC 6455, 1.3
    assert b"permessage-deflate" not in answer


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (ASK.replace(b"/gun?x=1", b"/other") % b"", 400, "ws.path"),
        (ASK.replace(b"/gun?x=1", b"/gun/") % b"", 400, "ws.path"),
        (ASK.replace(b"Version: 13", b"Version: 8") % b"", 400, "ws.handshake"),
        (ASK.replace(b"AAAAAAAAAAAAAAAAAAAAAA==", b"short") % b"", 400, "ws.handshake"),
        (ASK.replace(b"HTTP/1.1", b"HTTP/1.0") % b"", 505, "ws.handshake"),
        (ASK % b"Origin: https://evil\r\n", 403, "ws.origin"),
        (ASK.replace(b"GET", b"POST") % b"Content-Length: 9\r\n", 405, "http.method"),
        (ASK.replace(b"GET", b"get") % b"", 405, "http.method"),
        (ASK % b"Content-Length: 9\r\n", 400, "http.malformed"),
        (ASK % b"no colon here\r\n", 400, "http.malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "http.malformed"),
        (b"GET /gun HTTP/2\r\n\r\n", 400, "http.malformed"),
        (ASK % (b"X: " + b"a" * 2000 + b"\r\n"), 431, "http.too-big"),
        (b"GET /" + b"a" * 3000, 431, "http.too-big"),
        (ASK % (b"X: y\r\n" * 200), 431, "http.too-big"),
    ],
)
def test_a_request_that_is_refused_gets_a_status_and_has_a_code(asked: bytes, status: int, code: str) -> None:
    config = WebSocketConfig(header_bytes_max=2000, origins=frozenset({"https://app"}))
    for step in (len(asked), 1):
        core, clock = fresh(config)
        events: list[Event] = []
        for start in range(0, len(asked), step):
            events += core.receive(asked[start : start + step], clock.now())
        if events and isinstance(events[0], Request):
            events = core.accept(clock.now())
        assert [event.code for event in events if isinstance(event, Ended)] == [code]
        assert output(core).startswith(b"HTTP/1.1 %d " % status)
        assert core.ended is not None
        assert not core.done  # the peer is read out before the stream is closed


def test_a_program_without_origin_passes_an_origin_policy() -> None:
    core, clock = fresh(WebSocketConfig(origins=frozenset({"https://app"})))
    core.receive(ASK % b"", clock.now())
    assert core.accept(clock.now()) == [Opened()]


def test_frames_that_follow_the_request_at_once_wait_for_the_upgrade() -> None:
    core, clock = fresh()
    events = core.receive((ASK % b"") + frame(PING, b"early") + frame(TEXT, b"hasty"), clock.now())
    assert len(events) == 1
    assert not core.has_output
    assert core.accept(clock.now()) == [Opened(), Text(b"hasty")]
    answer = output(core)
    assert answer.index(b"HTTP/1.1 101") == 0
    assert answer.endswith(b"\x8a\x05early")


def test_a_plain_answer_has_its_length_and_closes() -> None:
    core, clock = fresh()
    (request,) = core.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", clock.now())
    assert isinstance(request, Request)
    assert not request.upgrade
    core.respond(request, plain(404), clock.now())
    head, _, body = output(core).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"Content-Length: 10" in head
    assert b"Connection: close" in head
    assert body == b"Not Found\n"
    assert core.ended is not None


def test_an_answer_in_pieces_is_chunked_unless_its_length_is_known() -> None:
    class Pieces:
        def __aiter__(self) -> Pieces:
            return self

        async def __anext__(self) -> bytes:
            raise StopAsyncIteration

    for headers, expected in (({}, b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), ({"content-length": "3"}, b"abc")):
        core, clock = fresh()
        (request,) = core.receive(b"GET / HTTP/1.1\r\n\r\n", clock.now())
        assert isinstance(request, Request)
        core.respond(request, HttpResponse(200, headers, Pieces()), clock.now())
        assert core.answering
        for piece in (b"ab", b"", b"c"):
            core.body(piece)
        core.body_end()
        assert output(core).partition(b"\r\n\r\n")[2] == expected
        assert not core.answering


def test_a_head_request_gets_no_body() -> None:
    core, clock = fresh()
    (request,) = core.receive(b"HEAD / HTTP/1.1\r\n\r\n", clock.now())
    assert isinstance(request, Request)
    core.respond(request, plain(200, "hello"), clock.now())
    assert output(core).endswith(b"\r\n\r\n")


def test_a_header_with_a_line_break_is_never_written() -> None:
    core, clock = fresh()
    (request,) = core.receive(b"GET / HTTP/1.1\r\n\r\n", clock.now())
    assert isinstance(request, Request)
    with pytest.raises(ValueError, match="control"):
        core.respond(request, plain(200, headers={"X": "a\r\nSet-Cookie: b"}), clock.now())


def test_many_frames_in_one_read_are_many_messages_in_order() -> None:
    core, clock = opened()
    sent = [b"%d" % number for number in range(500)]
    events = core.receive(b"".join(frame(TEXT, one) for one in sent), clock.now())
    assert events == [Text(one) for one in sent]


def test_fragments_are_joined_and_a_ping_may_stand_between_them() -> None:
    core, clock = opened()
    data = frame(TEXT, b"a", fin=False) + frame(PING, b"?") + frame(CONT, b"b", fin=False) + frame(CONT, b"c")
    assert core.receive(data, clock.now()) == [Text(b"abc")]
    assert output(core) == frame(PONG, b"?", mask=None)


def test_binary_messages_are_counted_and_dropped_without_a_reply() -> None:
    core, clock = opened()
    data = frame(BINARY, b"x") + frame(BINARY, b"y", fin=False) + frame(CONT, b"z") + frame(TEXT, b"t")
    assert core.receive(data, clock.now()) == [Text(b"t")]
    assert core.binary_dropped == 2
    assert not core.has_output


@pytest.mark.parametrize(
    ("data", "code", "close_code"),
    [
        (frame(TEXT, b"x" * 2001), "ws.too-big", 1009),
        (frame(TEXT, b"x" * 1500, fin=False) + frame(CONT, b"x" * 501), "ws.too-big", 1009),
        (frame(TEXT, b"x", fin=False) + frame(CONT, fin=False) * 8, "ws.too-many-fragments", 1008),
        (frame(BINARY, b"x", fin=False) + frame(CONT, fin=False) * 8, "ws.too-many-fragments", 1008),
        (frame(TEXT, b"x", mask=None), "ws.protocol", 1002),
        (frame(CONT, b"x"), "ws.protocol", 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), "ws.protocol", 1002),
        (frame(3, b"x"), "ws.protocol", 1002),
        (frame(TEXT | 0x40, b"x"), "ws.protocol", 1002),
        (frame(PING, b"x" * 126), "ws.protocol", 1002),
        (frame(PING, b"x", fin=False), "ws.protocol", 1002),
        (frame(CLOSE, b"\x03"), "ws.protocol", 1002),
        (close_frame(1005), "ws.protocol", 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), "ws.bad-text", 1007),
        (frame(TEXT, b"x", fin=False) + close_frame(1000), "ws.protocol", 1002),
    ],
)
def test_a_violation_ends_the_connection_with_its_codes(data: bytes, code: str, close_code: int) -> None:
    core, clock = opened()
    events = core.receive(frame(TEXT, b"before") + data + frame(TEXT, b"after"), clock.now())
    assert events[0] == Text(b"before")
    assert [(event.code, event.close_code) for event in events[1:] if isinstance(event, Ended)] == [
        (code, close_code)
    ]
    assert len(events) == 2
    said = output(core)
    assert said[0] == 0x80 | CLOSE
    # The library reads all bytes before the fragments are counted, and may have found a fault of its own.
    told = {close_code, 1002} if code == "ws.too-many-fragments" else {close_code}
    assert struct.unpack("!H", said[2:4])[0] in told
    assert isinstance(core.error(), Reset)
    assert core.error().code == code
    with pytest.raises(Reset):
        core.send([b"too late"])


def test_a_goodbye_of_the_peer_is_echoed_and_is_no_fault() -> None:
    core, clock = opened()
    events = core.receive(frame(TEXT, b"last") + close_frame(1001, "leaving"), clock.now())
    assert events == [Text(b"last"), Ended("link.closed", 1001, "leaving")]
    assert output(core) == frame(CLOSE, struct.pack("!H", 1001) + b"leaving", mask=None)
    assert core.done
    assert type(core.error()) is Closed


def test_our_goodbye_waits_for_the_answer_but_not_for_ever() -> None:
    core, clock = opened()
    core.close(1000, "x" * 200, clock.now())
    assert len(output(core)) == 2 + 125
    with pytest.raises(Closed):
        core.send([b"more"])
    assert core.receive(frame(TEXT, b"crossing"), clock.now()) == [Text(b"crossing")]
    assert core.receive(close_frame(1000), clock.now()) == [Ended("link.closed", 1000, "")]
    assert core.done

    core, clock = opened()
    core.close(1000, "", clock.now())
    assert core.tick(clock.advance(CONFIG.close_seconds - 0.1)) == []
    assert [event.code for event in core.tick(clock.advance(0.2)) if isinstance(event, Ended)] == [
        "ws.close-slow"
    ]


def test_a_stream_that_ends_without_goodbye_is_a_reset() -> None:
    core, clock = opened()
    core.receive(frame(TEXT, b"half")[:3], clock.now())
    (event,) = core.receive_eof(clock.now())
    assert event == core.ended
    assert core.error().code == "link.reset"
    assert core.receive_eof(clock.now()) == []


def test_a_slow_handshake_is_over_at_its_deadline_however_busy() -> None:
    core, clock = fresh()
    for byte in b"GET /gun HTTP/1.1\r\nX: ":
        assert core.receive(bytes([byte]), clock.advance(0.4)) == []
    assert core.deadline is not None
    assert core.overdue(clock.advance(2.0))
    assert [event.code for event in core.tick(clock.now()) if isinstance(event, Ended)] == [
        "ws.handshake-slow"
    ]
    assert core.done


def test_a_silent_peer_is_pinged_and_then_taken_for_dead() -> None:
    core, clock = opened()
    ping = frame(PING, mask=None)
    assert core.tick(clock.advance(29.9)) == []
    assert output(core) == b""
    assert core.tick(clock.advance(0.2)) == []
    assert output(core) == ping
    assert core.tick(clock.advance(30)) == []
    assert output(core) == ping
    assert core.tick(clock.advance(14)) == []
    assert [event.code for event in core.tick(clock.advance(1)) if isinstance(event, Ended)] == ["ws.dead"]
    assert core.deadline is None


def test_whatever_is_heard_puts_off_the_ping() -> None:
    core, clock = opened()
    for _ in range(10):
        assert core.receive(frame(PONG), clock.advance(29)) == []
        assert core.tick(clock.now()) == []
        assert not core.has_output


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_messages_of_every_length_class_cross_in_both_directions(size: int) -> None:
    server, client, clock = pair(WebSocketConfig())
    message = b"m" * size
    server.send([message, b"x", message])
    assert client.receive(output(server), clock.now()) == [Text(message), Text(b"x"), Text(message)]
    client.send([message, b"x", message])
    assert server.receive(output(client), clock.now()) == [Text(message), Text(b"x"), Text(message)]


def test_what_a_server_writes_is_what_the_rfc_says() -> None:
    core, _ = opened()
    core.send([b"Hello", b"y" * 256])
    assert output(core) == frame(TEXT, b"Hello", mask=None) + frame(TEXT, b"y" * 256, mask=None)


def test_a_client_takes_messages_that_come_with_the_answer() -> None:
    clock = ManualClock()
    server = WebSocketCore(CONFIG, clock.now())
    client = WebSocketCore(CONFIG, clock.now(), url="http://here:8765/gun")
    server.receive(output(client), clock.now())
    server.accept(clock.now())
    server.send([b"hello"])
    assert client.receive(output(server), clock.now()) == [Opened(), Text(b"hello")]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n", "ws.refused"),
        (b"HTTP/1.1 301 Moved\r\nLocation: ws://else\r\n\r\n", "ws.refused"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "ws.handshake"),
        (b"SSH-2.0-x\r\n\r\n", "ws.refused"),
        (b"HTTP/1.1 101 " + b"x" * 3000, "http.too-big"),
    ],
)
def test_a_client_says_why_it_was_not_let_in(answer: bytes, code: str) -> None:
    clock = ManualClock()
    client = WebSocketCore(CONFIG, clock.now(), url="ws://here/gun")
    output(client)
    events = client.receive(answer, clock.now())
    assert [event.code for event in events if isinstance(event, Ended)] == [code]


@pytest.mark.parametrize(
    "url", ["", "gun", "ftp://here/gun", "ws://", "ws://here:port/gun", "ws://here/gun#x"]
)
def test_an_address_that_is_none_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WebSocketCore(CONFIG, ManualClock().now(), url=url)
    assert caught.value.code == "ws.bad-url"


def test_calls_out_of_turn_are_misuse() -> None:
    core, clock = fresh()
    with pytest.raises(Misuse):
        core.accept(clock.now())
    with pytest.raises(Misuse):
        core.body(b"x")
    with pytest.raises(Closed):
        core.send([b"x"])


@pytest.mark.parametrize("code", [42, 1005, 1006, 2999, 5000])
def test_a_close_code_that_nobody_may_send_is_misuse(code: int) -> None:
    core, clock = opened()
    with pytest.raises(Misuse) as caught:
        core.close(code, "", clock.now())
    assert caught.value.code == "ws.bad-close-code"
    core.close(3000, "", clock.now())
    assert output(core)


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError):
        WebSocketConfig(frame_bytes_max=0)
    with pytest.raises(ConfigError):
        WebSocketConfig(ping_seconds=80.0)


PAYLOADS = st.binary(max_size=300)
FRAMES = st.one_of(
    PAYLOADS.map(lambda data: frame(TEXT, data)),
    PAYLOADS.map(lambda data: frame(BINARY, data)),
    st.binary(max_size=125).map(lambda data: frame(PING, data)),
    st.lists(PAYLOADS, min_size=1, max_size=6).map(
        lambda parts: b"".join(
            frame(TEXT if at == 0 else CONT, part, fin=at == len(parts) - 1) for at, part in enumerate(parts)
        )
    ),
)
ENDINGS = st.one_of(
    st.just(b""),
    st.just(close_frame(1000, "bye")),
    st.just(frame(TEXT, b"x" * 2001)),
    st.just(frame(TEXT, b"x", fin=False) + frame(CONT, fin=False) * 20),
    st.binary(max_size=40),
)


def feed(pieces: list[bytes]) -> tuple[list[Event], bytes]:
    core, clock = fresh()
    events: list[Event] = []
    for piece in pieces:
        for event in core.receive(piece, clock.now()):
            events.append(event)
            if isinstance(event, Request):
                events += core.accept(clock.now())
    said = output(core)
    events += core.receive_eof(clock.now())
    return events, said


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, max_size=8), ENDINGS, st.data())
def test_events_do_not_depend_on_how_bytes_arrive(
    frames: list[bytes], ending: bytes, data: st.DataObject
) -> None:
    whole = (ASK % b"") + b"".join(frames) + ending + frame(TEXT, b"after")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    events, said = feed(pieces)
    expected, expected_said = feed([whole])
    assert events == expected
    if not any(isinstance(event, Ended) and event.code == "ws.too-many-fragments" for event in events):
        assert said == expected_said
    assert feed([whole[at : at + 1] for at in range(len(whole))])[0] == expected


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_after_the_handshake_raise_anything(data: bytes) -> None:
    core, clock = opened()
    core.receive(data, clock.now())
    core.receive_eof(clock.now())
    assert core.ended is not None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_request_raises_anything(data: bytes) -> None:
    core, clock = fresh()
    events = core.receive(data + b"\r\n\r\n", clock.now())
    if events and isinstance(events[0], Request):
        core.accept(clock.now())
