"""Malformed input by the table: what is sent, and the code it must get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from air.sync.gun.limits import FORBIDDEN
from tests.hostile.attack import frame

__all__ = ["FRAMES", "MESSAGES", "REQUESTS"]

NOW = 1_700_000_000_000
DEEP = 100_000


def node(fields: dict[str, Any], states: Any = None, soul: Any = "s") -> dict[str, Any]:
    return {"_": {"#": soul, ">": dict.fromkeys(fields, NOW) if states is None else states}, **fields}


def put(graph: Any) -> bytes:
    return json.dumps({"#": "m", "put": graph}).encode()


def get(query: Any) -> bytes:
    return json.dumps({"#": "m", "get": query}).encode()


def raw_put(value: str = "1", state: str = "1", key: str = '"k"', soul: str = '"s"') -> bytes:
    """A put as text, for what no JSON writer would write."""
    return f'{{"#":"m","put":{{{soul}:{{"_":{{"#":{soul},">":{{{key}:{state}}}}},{key}:{value}}}}}}}'.encode()


def _values() -> Iterator[tuple[str, str, bytes]]:
    bad = [
        [],
        [1],
        [[]],
        {},
        {"a": 1},
        {"#": 5},
        {"#": ""},
        {"#": None},
        {"#": ["a"]},
        {"#": {"#": "a"}},
        {"#": "a", "b": 1},
        {"_": {}},
    ]
    for value in bad:
        name = json.dumps(value)
        yield "gun.bad-value", f"value {name}", put({"s": node({"k": value})})
        yield "gun.bad-value", f"second value {name}", put({"s": node({"a": 1, "k": value})})
        graph = {"a": node({"k": 1}, soul="a"), "s": node({"k": value})}
        yield "gun.bad-value", f"value {name} in the second node", put(graph)
    for text in (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "undefined",
        "0x10",
        "01",
        "+1",
        ".5",
        "1.",
        "'a'",
        "9" * 400,
    ):
        yield "gun.bad-json", f"value {text[:12]}", raw_put(value=text)
        yield "gun.bad-json", f"value {text[:12]} beside half a pair", raw_put(value=text, key='"\\ud800"')
    yield "limit.value", "value of 17 MiB", raw_put(value='"' + "v" * (17 << 20) + '"')
    yield "gun.bad-value", "value of 1,000 lists", raw_put(value="[" * 1_000 + "]" * 1_000)


def _states() -> Iterator[tuple[str, str, bytes]]:
    for state in ("5", None, True, False, [1], {"a": 1}, ""):
        yield "gun.bad-state", f"state {state!r}", put({"s": node({"k": 1}, {"k": state})})
    for states in ({}, {"other": 1}, None, 5, "x", []):
        yield "gun.no-state", f"states {states!r}", put({"s": {"_": {"#": "s", ">": states}, "k": 1}})
    for text in ("NaN", "Infinity", "1e999", "-1e999"):
        yield "gun.bad-json", f"state {text}", raw_put(state=text)
    for text in (
        "1e300",
        "9e15",
        "18446744073709551615",
        "18446744073709551616",
        "9007199254740993",
        "1" + "0" * 300,
    ):
        yield "graph.future-state", f"state {text[:24]}", raw_put(state=text)


def _names() -> Iterator[tuple[str, str, bytes]]:
    for soul in sorted(FORBIDDEN):
        yield "gun.forbidden-name", f"put to {soul}", put({soul: node({"k": 1}, soul=soul)})
        yield "gun.forbidden-name", f"get of {soul}", get({"#": soul})
        yield "gun.forbidden-name", f"link to {soul}", put({"s": node({"k": {"#": soul}})})
    yield "gun.forbidden-name", "key __proto__", put({"s": node({"__proto__": 1})})
    yield "gun.forbidden-name", "key __proto__ with an object", put({"s": node({"__proto__": {"#": "x"}})})
    yield "gun.empty-soul", "put to no name", put({"": node({"k": 1}, soul="")})
    yield "gun.empty-soul", "get of no name", get({"#": ""})
    yield "gun.empty-key", "key without a name", put({"s": node({"": 1})})
    for length in (9_000, 1 << 20):
        yield (
            "limit.soul",
            f"put to a soul of {length}",
            put({"x" * length: node({"k": 1}, soul="x" * length)}),
        )
        yield "limit.soul", f"get of a soul of {length}", get({"#": "x" * length})
        yield "limit.soul", f"get of a prefix of {length}", get({"#": {"*": "x" * length}})
        yield "limit.soul", f"link to a soul of {length}", put({"s": node({"k": {"#": "x" * length}})})
        yield "limit.key", f"key of {length}", put({"s": node({"x" * length: 1})})
        yield "limit.key", f"get of a key of {length}", get({"#": "s", ".": "x" * length})
        for mark in "*><":
            yield "limit.key", f"get of keys {mark} {length}", get({"#": "s", ".": {mark: "x" * length}})
    yield "limit.cells", "100,000 keys", put({"s": node({f"k{at}": 1 for at in range(100_000)})})
    yield (
        "limit.cells",
        "100,000 nodes",
        put({f"s{at}": node({"k": 1}, soul=f"s{at}") for at in range(100_000)}),
    )


def _shapes() -> Iterator[tuple[str, str, bytes]]:
    for graph in ([], [1], "text", None, 5, 1.5, True):
        yield "gun.bad-put", f"put {graph!r}", put(graph)
    for inner in (None, [], "x", 5, True, [{}]):
        yield "gun.bad-node", f"node {inner!r}", put({"s": inner})
    for meta in (None, 1, "x", [], {}, {"#": None}, {"#": 5}, {"#": "other"}, {"#": ["s"]}, {">": {"k": 1}}):
        yield "gun.bad-soul", f"meta {meta!r}", put({"s": {"_": meta, "k": 1}})
    yield "gun.bad-soul", "no meta", put({"s": {"k": 1}})
    for query in ("text", 5, None, [], {}, True, {"#": 5}, {"#": None}, {"#": []}, {"#": True}, {".": "k"}):
        yield "gun.bad-get", f"get {query!r}", get(query)
    for bad in (1, True, [], {}, 1.5):
        for mark in "=*><":
            yield "gun.bad-lex", f"keys {mark} {bad!r}", get({"#": "s", ".": {mark: bad}})
        yield "gun.bad-lex", f"souls = {bad!r}", get({"#": {"=": bad}})
        yield "gun.bad-lex", f"souls * {bad!r}", get({"#": {"*": bad}})
    for part in (5, [1], True, 1.5):
        yield "gun.bad-lex", f"keys {part!r}", get({"#": "s", ".": part})
    for marks in ({}, {">": "a"}, {"<": "a"}, {">": "a", "<": "b"}, {"-": 1}):
        yield "gun.bad-lex", f"souls {marks!r}", get({"#": marks})


def _ids() -> Iterator[tuple[str, str, bytes]]:
    for id in ([], {}, None, True, "", "x" * 129, "x" * (1 << 20), ["m"], {"#": "m"}):
        name = json.dumps(id)[:20]
        yield (
            "gun.bad-id",
            f"id {name} of a put",
            json.dumps({"#": id, "put": {"s": node({"k": 1})}}).encode(),
        )
        yield "gun.bad-id", f"id {name} of a get", json.dumps({"#": id, "get": {"#": "s"}}).encode()
    for id in ([], {}, True, "", "x" * 129, ["m"]):
        name = json.dumps(id)[:20]
        yield "gun.bad-id", f"ack of {name}", json.dumps({"#": "m", "@": id, "ok": 1}).encode()
        answer = {"#": "m", "@": id, "put": {"s": node({"k": 1})}}
        yield "gun.bad-id", f"answer to {name}", json.dumps(answer).encode()
    for kind in ("mob", "opt", "service", "tag"):
        for rest in ({}, {"mob": 2, "peers": {"http://other/gun": {}}}, {"opt": {"peers": ["http://x"]}}):
            yield (
                f"gun.refused-{kind}",
                f"{kind} {sorted(rest)}",
                json.dumps({"dam": kind, "#": "m"} | rest).encode(),
            )


def _texts() -> Iterator[tuple[str, str, bytes]]:
    for text in (
        "hello",
        " {}",
        "\n[]",
        "null",
        "true",
        "5",
        "-1",
        '"text"',
        "NaN",
        "\ufeff{}",
        "(",
        "}",
        "]",
        "<html>",
        "\0",
        "\x7f",
        "'",
        "é",
    ):
        yield "gun.bad-frame", f"frame {text!r}", text.encode()
    for data in (b"\xff\xfe", b"\x80", b"\xc0\x80", b"\xed\xa0\x80"):
        yield "gun.bad-frame", f"frame {data!r}", data
    whole = raw_put(value='"a\\u00e9b"')
    for end in range(1, len(whole), 2):
        yield "gun.bad-json", f"a put cut after {end}", whole[:end]
    for more in (b"}", b"]", b",", b"{}", b"\0", b" x", b"\xff", b"\\"):
        yield "gun.bad-json", f"a put and {more!r}", whole + more
    for wrong in (
        b"\xff",
        b"\x80",
        b"\xc3",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
    ):
        yield "gun.bad-json", f"value with {wrong!r}", raw_put(value='"@"').replace(b"@", wrong)
        yield "gun.bad-json", f"key with {wrong!r}", raw_put(key='"@"').replace(b"@", wrong)
        yield (
            "gun.bad-json",
            f"key with {wrong!r} beside half a pair",
            raw_put(value='"\\ud800"', key='"@"').replace(b"@", wrong),
        )
    for escape in ("\\x", "\\u12", "\\uzzzz", "\\", "\n", "\t", "\0", "\x1f", "\\u{61}"):
        yield "gun.bad-json", f"text with {escape!r}", raw_put(value=f'"{escape}"')
    for name, text in {
        "lists": "[" * DEEP,
        "objects": '{"a":' * DEEP,
        "closed lists": "[" * DEEP + "]" * DEEP,
    }.items():
        yield "gun.bad-json", f"{DEEP:,} {name}", text.encode()
        yield "gun.bad-json", f"{DEEP:,} {name} as a value", raw_put(value=text)
        yield "gun.bad-json", f"{DEEP:,} {name} beside half a pair", raw_put(value=text, key='"\\ud800"')
    for items in ("1", "null", "[]", '"[]"', '"5"', "true", "[{}]"):
        yield "gun.bad-message", f"[{items}]", f"[{items}]".encode()
    yield "gun.bad-json", "a bad text in an array", b'["{bad"]'
    yield "limit.messages", "20,001 messages", b"[" + b'{"#":"a"},' * 20_000 + b'{"#":"a"}]'
    yield "limit.messages", "100,000 messages", b"[" + b"{}," * 100_000 + b"{}]"


MESSAGES = [*_values(), *_states(), *_names(), *_shapes(), *_ids(), *_texts()]
"""(code, name, text frame): the peer is told the code, and its connection goes on."""


def _head(first: int, size: int, *, masked: bool = True) -> bytes:
    mask = 0x80 if masked else 0
    if size < 126:
        return bytes([first, mask | size])
    if size < 65_536:
        return bytes([first, mask | 126]) + size.to_bytes(2, "big")
    return bytes([first, mask | 127]) + size.to_bytes(8, "big")


def _frames() -> Iterator[tuple[int, str, bytes]]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield 1002, f"opcode {opcode}", frame(b"{}", 0x80 | opcode)
        yield 1002, f"opcode {opcode} as a fragment", frame(b"{}", opcode)
    for bits in range(1, 8):
        yield 1002, f"reserved bits {bits:03b}", frame(b"{}", 0x81 | bits << 4)
        yield 1002, f"reserved bits {bits:03b} of a ping", frame(b"", 0x89 | bits << 4)
    # What a compressed bomb looks like: a bit that was never agreed on, then deflate of a million zeros.
    yield (
        1002,
        "a compressed bomb",
        frame(b"\xec\xc1\x01\x01\x00\x00\x00\x80\x90\xfe\xaf\xee\x08\x0a" * 100, 0xC1),
    )
    yield 1002, "a compressed fragment", frame(b"x", 0x41)
    yield 1002, "no mask", b"\x81\x02{}"
    yield 1002, "a long ping without a mask", b"\x89\x7d" + b"x" * 125
    for opcode in (8, 9, 10):
        yield 1002, f"control frame {opcode} of 126 bytes", frame(b"x" * 126, 0x80 | opcode)
        yield 1002, f"control frame {opcode} of 70,000 bytes", frame(b"x" * 70_000, 0x80 | opcode)
        yield 1002, f"control frame {opcode} in pieces", frame(b"xx", opcode)
    yield 1002, "a continuation of nothing", frame(b"{}", 0x80)
    yield 1002, "a text within a text", frame(b"{", 0x01) + frame(b"}", 0x81)
    yield 1002, "a binary message within a text", frame(b"{", 0x01) + frame(b"}", 0x82)
    for size in (100_000_000, (64 << 20) + 1, 2**32, 2**62):
        yield 1009, f"a frame of {size:,} bytes", _head(0x81, size) + b"\0\0\0\0" + b"x" * 1000
        yield 1009, f"a binary frame of {size:,} bytes", _head(0x82, size) + b"\0\0\0\0" + b"x" * 1000
    half = frame(b" " * (1 << 20), 0x01), frame(b" " * (1 << 20), 0x00)
    yield 1009, "65 MiB in fragments", half[0] + half[1] * 64
    yield 1008, "fragments without end", frame(b"x", 0x01) + frame(b"", 0x00) * 6_000
    yield 1008, "binary fragments without end", frame(b"x", 0x02) + frame(b"", 0x00) * 6_000
    yield 1008, "pings without end", frame(b"", 0x89) * 6_000
    yield 1008, "pongs without end", frame(b"", 0x8A) * 6_000
    yield 1008, "binary messages without end", frame(b"x" * 1024, 0x82) * 6_000
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535):
        yield 1002, f"close code {code}", frame(code.to_bytes(2, "big"), 0x88)
    yield 1002, "close of one byte", frame(b"\x03", 0x88)
    yield 1007, "a reason that is not UTF-8", frame(b"\x03\xe8\xff\xfe", 0x88)
    yield 1007, "a reason with half a pair", frame(b"\x03\xe8\xed\xa0\x80", 0x88)


FRAMES = list(_frames())
"""(close code, name, bytes after the upgrade): the connection is closed with the code."""

_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
_ASK = ["Host: h", "Upgrade: websocket", "Connection: Upgrade", _KEY, "Sec-WebSocket-Version: 13"]


def _http(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1")


def _without(name: str, *instead: str) -> list[str]:
    return [header for header in _ASK if not header.startswith(name)] + list(instead)


def _requests() -> Iterator[tuple[int, str, bytes]]:
    upgrade = "GET /gun HTTP/1.1"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW", "get"):
        yield 405, f"method {method}", _http(f"{method} /gun HTTP/1.1", *_ASK)
    for path in ("/", "/other", "/gun/", "/gun/..", "/GUN", "/%67un", "//gun", "/gun%00", "/gun;x"):
        yield 400, f"upgrade at {path}", _http(f"GET {path} HTTP/1.1", *_ASK)
    for line in (
        "GET /gun",
        "GET  /gun HTTP/1.1",
        "GET /gun HTTP/9.9",
        "GET /gun HTTP/0.9",
        "/gun",
        "GET",
        " GET /gun HTTP/1.1",
        "G\0T /gun HTTP/1.1",
        "\x16\x03\x01\x02\x00\x01",
        "SSH-2.0-x",
        "GET /gun HTTP/1.1 x",
    ):
        yield 400, f"line {line!r}", _http(line, *_ASK)
    for header in ("no colon", ": empty", "a b: c", "a\0: b", "a: b\0", " folded: x", "a\x01: b", "\xff: b"):
        yield 400, f"header {header!r}", _http(upgrade, *_ASK, header)
    yield 400, "no key", _http(upgrade, *_without("Sec-WebSocket-Key"))
    for key in ("", "x", "!!!!", "dGhlIHNhbXBsZSBub25jZQ", "AAAA", "A" * 1000):
        yield (
            400,
            f"key {key[:12]!r}",
            _http(upgrade, *_without("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {key}")),
        )
    yield 400, "two keys", _http(upgrade, *_ASK, _KEY)
    yield 400, "no version", _http(upgrade, *_without("Sec-WebSocket-Version"))
    for version in ("8", "0", "14", "x", ""):
        yield (
            400,
            f"version {version!r}",
            _http(upgrade, *_without("Sec-WebSocket-Version", f"Sec-WebSocket-Version: {version}")),
        )
    for name in ("Upgrade", "Connection"):
        yield 426, f"no {name}", _http(upgrade, *_without(name))
    yield 426, "another upgrade", _http(upgrade, *_without("Upgrade", "Upgrade: h2c"))
    yield 404, "a plain request elsewhere", _http("GET /x HTTP/1.1", "Host: h")
    yield 426, "a plain request", _http("GET /gun HTTP/1.0")
    yield 414, "a path of 9,000", _http("GET /" + "x" * 9_000 + " HTTP/1.1", *_ASK)
    yield 431, "a path of 100,000", _http("GET /" + "x" * 100_000 + " HTTP/1.1", *_ASK)
    yield 431, "a header of 9,000", _http(upgrade, *_ASK, "x: " + "y" * 9_000)
    yield 431, "a header of 100,000", _http(upgrade, *_ASK, "x: " + "y" * 100_000)
    yield 431, "200 headers", _http(upgrade, *_ASK, *(f"x{at}: y" for at in range(200)))
    yield 431, "lines without end", b"GET /gun HTTP/1.1\r\n" + b"x: y\r\n" * 4_000
    yield 431, "bytes without end", b"\0" * 20_000


REQUESTS = list(_requests())
"""(status, name, bytes of a request): it is answered with the status, and the connection ends."""
