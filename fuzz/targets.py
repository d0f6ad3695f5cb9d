# ruff: noqa: PT017
"""What is fuzzed, and what must hold whatever comes. (core)

A target takes bytes and returns; anything it raises is a finding.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

from air.base.clock import Now
from air.base.entropy import IdSource, SeededEntropy
from air.base.errors import ConfigError, Misuse, Violation
from air.base.metrics import Counters
from air.daemon.settings import load
from air.model.cell import Cell
from air.model.lex import matches, parse_lex
from air.model.message import Ack, Answer, Get, Put, SoulRange
from air.model.value import unit_bytes
from air.store.memory import Memory, select
from air.sync.gun.limits import GunLimits
from air.sync.gun.reader import Incoming, parse_frame, read_message
from air.sync.gun.wire import Greeting, GunCodec, GunConfig, GunLink
from air.transport.http import plain
from air.transport.websocket.config import WebSocketConfig
from air.transport.websocket.core import Ended, Text, WebSocketCore
from fuzz.draw import Draw

__all__ = ["TARGETS"]

NOW = Now(0.0, 1_700_000_000_000.0)
_LIMITS = GunLimits(messages_max=50, cells_max=60, value_chars_max=9_000, part_bytes=600, part_fields=5)
_WIRE = GunConfig(limits=_LIMITS)


# -- GUN ---------------------------------------------------------------------


def gun(data: bytes) -> None:
    """A frame is read or refused with a code, and what was read can be written and read again."""
    draw = Draw(data)
    frame = draw.rest() if draw.byte() % 2 else _gun_frame(draw)
    try:
        parsed = parse_frame(frame, _LIMITS)
    except Violation as error:
        assert error.code.startswith(("gun.", "limit.")), error.code
        parsed = []
    ids = IdSource(SeededEntropy(1))
    codec = GunCodec(_WIRE, ids, Memory(1 << 20), for_relay=bool(len(data) % 2))
    for raw in parsed:
        try:
            message = read_message(raw, _LIMITS, ids())
        except Violation as error:
            assert error.code.startswith(("gun.", "limit.")), error.code
            continue
        if isinstance(message, Put | Get | Answer | Ack):
            _check_written(codec, message)
    link = GunLink(dialer=len(frame) % 3 == 0, pid="airairair", ids=ids, config=_WIRE, counters=Counters())
    try:
        for item in link.receive(frame):
            if not isinstance(item, Greeting):
                link.refuse(item.id, Violation("tried", code="gun.tried"))
    except Violation as error:
        assert error.fatal
    for out in link.take_frames():
        _strict(out)


def _gun_frame(draw: Draw) -> bytes:
    messages = [_gun_message(draw) for _ in range(1 + draw.below(3))]
    if draw.below(4) == 0:
        messages = [json.dumps(message) for message in messages]
    raw: Any = messages[0] if len(messages) == 1 and draw.below(2) else messages
    # Written as any JSON writer might: ASCII only, or UTF-8 with whatever stood in the text.
    text = json.dumps(raw, ensure_ascii=draw.below(2) == 0)
    return text.encode("utf-8", "surrogatepass")


def _gun_message(draw: Draw) -> Any:
    message: dict[str, Any] = {}
    if draw.below(8):
        message["#"] = draw.text() if draw.below(4) else draw.json(1)
    kind = draw.below(8)
    if kind < 3:
        message["put"] = {
            soul: _gun_node(draw, soul) for soul in (draw.text() for _ in range(1 + draw.below(2)))
        }
    elif kind < 5:
        message["get"] = _gun_query(draw)
    elif kind == 5:
        message["dam"] = draw.pick(["?", "!", "hi", "mob", "opt", draw.text()])
    else:
        message["@"] = draw.text()
    for _ in range(draw.below(3)):
        message[draw.pick(["#", "@", "put", "get", "dam", "ok", "err", "##", "><", "%", "pid", "x", "_"])] = (
            draw.json()
        )
    return message


def _gun_node(draw: Draw, soul: str) -> Any:
    if draw.below(10) == 9:
        return draw.json()
    fields = {
        draw.text(): draw.json(1) if draw.below(3) == 0 else draw.text() for _ in range(1 + draw.below(9))
    }
    states = {key: draw.number() if draw.below(5) else draw.json(0) for key in fields}
    return {"_": {"#": soul, ">": states}, **fields}


def _gun_query(draw: Draw) -> Any:
    query: dict[str, Any] = {"#": draw.text() if draw.below(3) else {draw.pick("=*<>"): draw.text()}}
    for name in (".", "%", "-", "="):
        if draw.below(2):
            query[name] = draw.json(2)
    return query


def _strict(data: bytes) -> Any:
    """Parse as strictly as any peer might."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(data.decode(), parse_constant=refuse)


def _check_written(codec: GunCodec, message: Put | Get | Answer | Ack) -> None:
    seen: list[Incoming | None] = []
    for out in codec.encode(message, ("peer",)):
        raw = _strict(out)
        assert type(raw) is dict
        if isinstance(message, Answer) and not any(fields for _, fields in message.nodes):
            continue
        for parsed in parse_frame(out, _LIMITS):
            seen.append(read_message(parsed, _LIMITS, "x"))
    if isinstance(message, Put) and not codec._for_relay:
        (again,) = seen
        assert isinstance(again, Put)
        assert sorted(map(_cell_key, again.cells)) == sorted(map(_cell_key, message.cells))
        assert again.extra == message.extra
    elif isinstance(message, Answer):
        cells = [cell for part in seen if isinstance(part, Answer) for cell in part.cells()]
        if not codec._for_relay:
            assert sorted(map(_cell_key, cells)) == sorted(map(_cell_key, message.cells()))
    elif isinstance(message, Get):
        (again,) = seen
        assert isinstance(again, Get)
        if not isinstance(message.soul, SoulRange):
            assert (again.soul, again.lex) == (message.soul, message.lex), (again, message)


def _cell_key(cell: Cell) -> tuple[str, str, str, float]:
    return (cell.soul, cell.key, repr(cell.value), cell.state)


# -- WebSocket ---------------------------------------------------------------

_UPGRADE = (
    b"GET /gun HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)
_WS = WebSocketConfig(frame_bytes_max=2_000, fragments_max=8, header_bytes_max=1_500)


def websocket(data: bytes) -> None:
    """Bytes become events or a close, never an exception, and alike however they arrive."""
    draw = Draw(data)
    mode, cut = draw.byte(), 1 + draw.byte()
    if mode % 4 == 0:
        stream = draw.rest()
    elif mode % 4 == 1:
        stream = _UPGRADE + draw.rest()
    else:
        stream = _UPGRADE + b"\r\n" + _frames(draw)
    whole = _feed([stream])
    cut = max(cut, len(stream) // 40)
    apart = _feed([stream[at : at + cut] for at in range(0, len(stream), cut)])
    counted = ("ws.too-many-fragments", "ws.idle-flood")
    if any(ended is not None and ended.code in counted for _, _, ended in (whole, apart)):
        # The library reads ahead: what comes after the frame that was one too many may be named instead.
        assert whole[0] == apart[0]
    else:
        assert whole == apart


def _frames(draw: Draw) -> bytes:
    out = bytearray()
    while draw.left > 2:
        head = draw.pick([0x81, 0x01, 0x80, 0x00, 0x82, 0x89, 0x8A, 0x88, draw.byte()])
        kind = draw.below(8)
        body = draw.take(draw.below(2_300) if kind == 0 else draw.below(140))
        size = len(body)
        masked = 0 if kind == 7 else 0x80
        if kind == 6:
            size = draw.pick([0, 1, 125, 126, 65_535, 65_536, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
        out.append(head)
        if size < 126 and kind != 5:
            out.append(masked | size)
        elif size < 65_536 and kind != 4:
            out += bytes([masked | 126]) + size.to_bytes(2, "big")
        else:
            out += bytes([masked | 127]) + size.to_bytes(8, "big")
        if masked:
            mask = draw.take(4).ljust(4, b"\0")
            out += mask
            body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
        out += body
    return bytes(out) + draw.rest()


def _feed(pieces: list[bytes]) -> tuple[list[bytes], bytes, Ended | None]:
    core = WebSocketCore(_WS, NOW)
    texts: list[bytes] = []
    out = b""
    for piece in pieces:
        for event in core.receive(piece, NOW):
            if isinstance(event, Text):
                texts.append(event.data)
            elif not isinstance(event, Ended) and hasattr(event, "upgrade"):
                if event.upgrade:
                    texts += [one.data for one in core.accept(NOW) if isinstance(one, Text)]
                else:
                    core.respond(event, plain(404), NOW)
        out += b"".join(core.take_output())
    ended = core.ended
    core.receive_eof(NOW)
    core.tick(Now(1e9, NOW.wall))
    core.close(1000, "x" * 200, NOW)
    core.take_output()
    if ended is not None:
        assert ended.code.startswith(("ws.", "http.", "link.")), ended
        try:
            core.send([b"x"])
        except Exception as error:
            assert not isinstance(error, Misuse | AssertionError)
    return texts, out, ended


# -- LEX ---------------------------------------------------------------------


def lex(data: bytes) -> None:
    """A LEX is read or refused; what it chooses are the keys within its bounds, in order, within budget."""
    draw = Draw(data)
    raw: Any = {mark: draw.text() if draw.below(4) else draw.json(1) for mark in "=*><-" if draw.below(2)}
    if draw.below(6) == 0:
        raw = draw.json()
    keys = list(dict.fromkeys(draw.text() for _ in range(draw.below(8))))
    for key in keys:
        if isinstance(raw, str | dict):
            assert matches(key, raw) in (True, False)
    try:
        query = parse_lex(raw, draw.json(1), reverse=draw.below(2) == 0)
    except Violation as error:
        assert error.code == "gun.bad-lex"
        return
    low, high, included = query.bounds()
    prefix = unit_bytes(query.prefix)
    within = []
    for key in keys:
        unit = unit_bytes(key)
        holds = query.holds(key)
        between = unit >= low and (high is None or unit < high or (included and unit == high))
        assert not holds or between
        assert holds == (between and unit.startswith(prefix))
        if holds:
            within.append(key)
    fields = {key: (draw.text(), 1) for key in keys}
    page = select(fields, query, None, 10**6, 10**9)  # type: ignore[arg-type]
    chosen = list(page.fields)
    assert set(chosen) <= set(within)
    assert page.next is None
    if query.exact is None and query.prefix not in (*keys,):
        expected = sorted(within, key=unit_bytes, reverse=query.reverse)
        assert chosen == expected[: len(chosen)]
        assert chosen or not expected or query.budget is not None
        if query.budget is None:
            assert chosen == expected
    # Page by page it is the same, when nothing ends it early.
    if query.budget is None and query.exact is None:
        paged: list[str] = []
        after = None
        while True:
            part = select(fields, query, after, 2, 10**9)  # type: ignore[arg-type]
            paged += part.fields
            after = part.next
            if after is None:
                break
        assert paged == chosen


# -- settings ----------------------------------------------------------------

_FOLDER = tempfile.mkdtemp(prefix="air-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
_FILE = os.path.join(_FOLDER, "air.toml")
_NAMES = (
    "node.data",
    "node.backend",
    "gun.port",
    "gun.peers",
    "gun.origins",
    "gun.frame_bytes_max",
    "gun.tls_cert",
    "gun.handshake_seconds",
    "store.engine",
    "store.cache_bytes",
    "store.commit_window_ms",
    "admin.allow_remote",
    "log.level",
)
_WORDS = (
    '"64 MiB"',
    '"1.5 kb"',
    "5",
    "-1",
    "1e9",
    "inf",
    "nan",
    "true",
    '""',
    '"*"',
    '["a"]',
    "[]",
    "{}",
    '"\\u0000"',
    "0x10",
    "1979-05-27",
    '"9999999999999999 GiB"',
)


def config(data: bytes) -> None:
    """A file of settings is taken or refused with a code and one line of text."""
    draw = Draw(data)
    environ = {"XDG_CONFIG_HOME": "/nonexistent"}
    if draw.byte() % 2:
        text = draw.rest()
    else:
        lines: dict[str, list[str]] = {}
        for _ in range(draw.below(5)):
            section, _, name = draw.pick(_NAMES).partition(".")
            value = draw.pick(_WORDS) if draw.below(3) else draw.take(draw.below(12)).decode("latin-1")
            lines.setdefault(section, []).append(f"{name} = {value}")
        text = "\n".join(f"[{section}]\n" + "\n".join(some) for section, some in lines.items()).encode()
        if draw.below(3) == 0:
            name = "AIR_" + draw.pick(_NAMES).replace(".", "__").upper()
            environ[name] = draw.take(20).decode("latin-1").replace("\0", "")
    with open(_FILE, "wb") as file:
        file.write(text)
    try:
        settings = load(environ, config_file=_FILE)
    except ConfigError as error:
        assert error.code.startswith("config."), error.code
        assert len(str(error)) < 2_000
        return
    assert 0 <= settings.config.gun.port <= 65_535


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gun": gun,
    "websocket": websocket,
    "lex": lex,
    "config": config,
}
"""By name, for ``python -m fuzz NAME``."""
