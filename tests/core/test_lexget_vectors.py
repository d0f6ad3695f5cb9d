"""Every recorded lexical get, answered from SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from air.model import ALL, Cell, SoulRange, Value, canonical, parse_lex
from air.model.value import Link
from air.store.sqlite import Sqlite, SqliteConfig
from tests.vector_files import load

pytestmark = pytest.mark.vectors

RECORDED = load("gun/lexget.json")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sqlite]:
    path = tmp_path_factory.mktemp("lexget") / "air.db"
    store = Sqlite(path, SqliteConfig(durable=False))
    for soul, fields in RECORDED["data"].items():
        store.write([Cell(soul, key, value_of(raw), RECORDED["state"]) for key, raw in fields.items()])
    yield store
    store.close()


def value_of(raw: object) -> Value:
    known = canonical(raw)
    assert known is not None
    return known[0]


def plain(value: Value) -> Any:
    return {"#": value.soul} if isinstance(value, Link) else value


def ask(store: Sqlite, get: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The nodes that answer a get, read page by page where there are pages."""
    soul, reverse = get["#"], bool(get.get("-"))
    answer: dict[str, dict[str, Any]] = {}
    if isinstance(soul, dict) and "*" in soul:
        lex = parse_lex(soul, get.get("%"), reverse=reverse)
        assert lex.budget is not None
        souls, cursor = SoulRange(lex.prefix, lex.budget, lex.reverse), None
        while True:
            page = store.scan(souls, after=cursor, fields_max=3)
            for cell in page.cells:
                answer.setdefault(cell.soul, {})[cell.key] = plain(cell.value)
            cursor = page.next
            if cursor is None:
                return answer
    if isinstance(soul, dict):
        reverse = reverse or bool(soul.get("-"))
        soul = soul["="]
    lex = parse_lex(get["."], get.get("%"), reverse=reverse) if get.get(".", "") != "" else ALL
    after: str | None = None
    while True:
        part = store.read(soul, lex, after=after, fields_max=3)
        for key, (value, state) in part.fields.items():
            assert state == RECORDED["state"]
            answer.setdefault(soul, {})[key] = plain(value)
        after = part.next
        if after is None:
            return answer


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: str(case["note"]))
def test_a_lexical_get_is_answered_as_gun_answered_it(store: Sqlite, case: dict[str, Any]) -> None:
    assert ask(store, case["get"]) == (case["answer"] or {})
