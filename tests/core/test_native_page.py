"""docs/native-wire.md against the code: codes, limits and the bytes it shows."""

from __future__ import annotations

import json
import re
from operator import attrgetter
from pathlib import Path

from air.sync.native.limits import NativeConfig
from tests.hostile.native_malformed import impersonal, personal

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "native-wire.md").read_text()
MIB = 1024 * 1024


def test_every_code_that_a_link_can_end_with_is_on_the_page() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "air" / "sync" / "native").glob("*.py"))
    written = set(re.findall(r'"((?:native|limit|link)\.[a-z-]+)"', source)) - {"native.wishes"}
    told = {case.code for case in [*personal("a", "b"), *impersonal()]}
    said = set(re.findall(r"`((?:native|limit|link|frame|varint)\.[a-z-]+)`", PAGE))
    assert written | told <= said
    # What is put together from parts is exercised by the table of malformed frames.
    assert {code for code in said if code not in written | told} <= {"link.closed", "limit.subscriptions"}


def test_the_defaults_on_the_page_are_those_in_force() -> None:
    config, checked = NativeConfig(), 0
    for first, names, defaults in re.findall(
        r"^\| `((?:\w+\.)?)(\w+`[\w.`, ]*) \| ([\d, MiB]+) \|", PAGE, re.M
    ):
        values = [
            int(number.replace(",", "")) * (MIB if unit else 1)
            for number, unit in re.findall(r"(\d+(?:,\d{3})*)( MiB)?", defaults)
        ]
        for index, name in enumerate(re.findall(r"\w+", names)):
            assert attrgetter(first + name)(config) == values[min(index, len(values) - 1)], name
            checked += 1
    assert checked >= 17


def test_the_bytes_on_the_page_are_in_the_transcript() -> None:
    lines = (ROOT / "tests" / "vectors" / "native" / "client.jsonl").read_text().splitlines()
    stream = "\n".join(json.loads(line)["hex"] for line in lines)
    rows = re.findall(r"^\| ((?:`[0-9a-f ]+`(?: …)? ?)+)\| [^|]+ \|$", PAGE, re.M)
    shown = [re.sub(r"[^0-9a-f…]", "", row) for row in rows]
    start = shown.index("59")
    hello = "".join(shown[start : start + 10])
    front, back = hello.split("…")
    first = stream.splitlines()[0]
    assert first.startswith(front)
    assert first.endswith(back)
    put = "".join(shown[start + 10 : -1])
    assert put in stream.splitlines()
    assert shown[-1] in stream.splitlines()
