"""One flipped bit, anywhere in the files: detected, harmless or repaired, and never served as data."""

from __future__ import annotations

import contextlib
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from air.base.errors import StoreError
from air.model import Cell, Lex, Link, SoulRange
from air.store.sqlite import Sqlite, SqliteConfig
from tests.faults.scale import FULL, seeded

pytestmark = pytest.mark.faults

FLIPS = 10_000 if FULL else 150
NODES = 60

State = dict[tuple[str, str], tuple[Any, float]]


class Files(NamedTuple):
    """A database and its log, as a crash leaves them, and every version of each field that was written."""

    database: bytes
    log: bytes
    newest: State
    versions: dict[tuple[str, str], set[tuple[Any, float]]]


def made(folder: Path, config: SqliteConfig, chance: random.Random) -> Files:
    path = folder / "made.db"
    store = Sqlite(path, config)
    newest: State = {}
    versions: dict[tuple[str, str], set[tuple[Any, float]]] = {}

    def write(cells: list[Cell]) -> None:
        store.write(cells)
        for soul, key, value, state in cells:
            newest[soul, key] = (value, state)
            versions.setdefault((soul, key), set()).add((value, state))

    values = [None, True, 12, 1.5, "text " * 9, "é😀\ud800", Link("n"), "a longer text " * 8]
    for node in range(NODES):
        write([Cell(f"node {node}", f"field {i}", chance.choice(values), 1 + i / 8) for i in range(40)])
    write([Cell("node 7", "long", "long " * 3000, 1)])
    store.close()
    store = Sqlite(path, config)
    for state in range(10, 40):
        node = chance.randrange(NODES)
        keys = chance.sample(range(45), chance.choice([1, 3, 30]))
        write([Cell(f"node {node}", f"field {i}", f"{state}", state) for i in keys])
    database, log = path.read_bytes(), path.with_name("made.db-wal").read_bytes()
    store.close()
    return Files(database, log, newest, versions)


def served(store: Sqlite) -> tuple[State, int]:
    """All that a store serves in any of its ways, and how often it said that it cannot."""
    found: State = {}
    refused = 0
    for node in range(NODES):
        for lex in (Lex(), Lex(reverse=True), Lex(prefix="field 1"), Lex(exact=f"field {node % 45}")):
            try:
                page = store.read(f"node {node}", lex, fields_max=10**6, bytes_max=10**9)
            except StoreError:
                refused += 1
                continue
            for key, field in page.fields.items():
                assert found.setdefault((f"node {node}", key), field) == field
    try:
        for cell in store.scan(SoulRange("", 10**9), fields_max=10**6, bytes_max=10**9).cells:
            assert found.setdefault((cell.soul, cell.key), cell[2:]) == cell[2:]
    except StoreError:
        refused += 1
    return found, refused


def judged(path: Path, config: SqliteConfig, files: Files, place: int, bit: int) -> str:
    """What became of one flipped bit."""
    database, log = bytearray(files.database), bytearray(files.log)
    if place < len(database):
        database[place] ^= 1 << bit
    else:
        log[place - len(database)] ^= 1 << bit
    path.write_bytes(database)
    path.with_name(path.name + "-wal").write_bytes(log)
    path.with_name(path.name + "-wal.damaged").unlink(missing_ok=True)
    try:
        store = Sqlite(path, config)
    except StoreError:
        return "detected: not opened"
    try:
        found, refused = served(store)
        for place_, field in found.items():
            assert field in files.versions[place_], f"served and never written: {place_} {field}"
        whole = found == files.newest
        if refused:
            return "detected: reads refused"
        if store.damaged:
            assert store.damaged_names
            return "detected: records left out"
        if store.lost:
            assert path.with_name(path.name + "-wal.damaged").exists()
            return "detected: transactions lost from the log"
        if store.unfinished and not whole:
            return "detected: the last transaction of the log left out"
        verification = store.verify()
        if verification.damaged or verification.faults:
            return "harmless, and named by verify" if whole else "detected: by verify only"
        return "harmless" if whole else "UNDETECTED"
    finally:
        with contextlib.suppress(StoreError):
            store.close()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_flipped_bit_is_detected_or_harmless_and_never_served(tmp_path: Path, encrypted: bool) -> None:
    chance = seeded("flips")
    key = None
    if encrypted:
        key = tmp_path / "key"
        key.write_text("a key for a test")
        key.chmod(0o600)
    config = SqliteConfig(durable=False, key_file=key, checkpoint_pages=10_000)
    files = made(tmp_path, config, chance)
    size, seen = len(files.database) + len(files.log), Counter[str]()
    flips = FLIPS // 5 if encrypted else FLIPS
    for _ in range(flips):
        place, bit = chance.randrange(size), chance.randrange(8)
        verdict = judged(tmp_path / "flipped.db", config, files, place, bit)
        seen[verdict] += 1
        assert verdict != "UNDETECTED", f"bit {bit} of byte {place} (database: {len(files.database)} bytes)"
        if encrypted:
            assert "verify only" not in verdict
    print(f"{flips} flips in {len(files.database)} + {len(files.log)} bytes:")
    for verdict, count in seen.most_common():
        print(f"  {count:6} {verdict}")


def test_a_damaged_name_hides_none_of_the_records_around_it(tmp_path: Path) -> None:
    """Whichever record it is in, be it one that guides the search: at most that field is missing."""
    chance, config = seeded("names"), SqliteConfig(durable=False)
    made(tmp_path, config, chance)
    database = (tmp_path / "made.db").read_bytes()
    store = Sqlite(tmp_path / "made.db", config)
    newest = nodes(store)
    store.close()
    places = [match.start() for match in re.finditer(rb"node \d+field", database)]
    path = tmp_path / "flipped.db"
    for place in chance.sample(places, 800 if FULL else 40):
        flipped = bytearray(database)
        flipped[place + chance.randrange(10)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        store = Sqlite(path, config)
        found = nodes(store)
        missing = [field for field in newest if field not in found]
        assert len(missing) <= 1, f"byte {place}: {missing}"
        assert found.items() <= newest.items()
        assert (store.damaged > 0) == bool(missing)
        # And one by one, as each would be asked for.
        for soul, key in chance.sample(sorted(newest), 200):
            known = store.read(soul, Lex(exact=key)).fields
            assert known or (soul, key) in missing, f"byte {place}: {soul} {key}"
        store.close()


def nodes(store: Sqlite) -> State:
    """Every node, read by its name from either end, and in pages."""
    found: State = {}
    for node in range(NODES):
        soul = f"node {node}"
        for lex in (Lex(), Lex(reverse=True)):
            after = None
            while True:
                page = store.read(soul, lex, after=after, fields_max=17)
                found.update({(soul, key): field for key, field in page.fields.items()})
                after = page.next
                if after is None:
                    break
    return found
