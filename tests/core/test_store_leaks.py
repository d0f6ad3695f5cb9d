"""A store leaves nothing behind in memory for what it was asked."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from air.model.cell import Cell
from air.model.lex import Lex
from air.model.message import SoulRange
from air.store.records import Verification
from air.store.sqlite import Sqlite

ASKED: dict[str, Callable[[Sqlite], object]] = {
    "a node that is not there": lambda store: store.read("none"),
    "a node": lambda store: store.read("many"),
    "a page of a node": lambda store: store.read("many", fields_max=2),
    "the last field": lambda store: store.read("many", Lex(reverse=True), fields_max=1),
    "one field": lambda store: store.read("many", Lex(exact="k3")),
    "a field that is not there": lambda store: store.read("many", Lex(exact="other")),
    "nodes by their beginning": lambda store: store.scan(SoulRange("ma", 100)),
    "a page of nodes": lambda store: store.scan(SoulRange("", 1000), fields_max=1),
    "names of nodes": lambda store: store.souls(),
    "a check of every record": lambda store: store.records.verify(Verification()),
    "edits that lost": lambda store: store.conflicts(),
    "a write": lambda store: store.write([Cell("many", "k1", "w", 2)]),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_asking_again_and_again_leaves_no_cursor_behind(
    tmp_path: Path, ask: Callable[[Sqlite], object]
) -> None:
    store = Sqlite(tmp_path / "air.db")
    store.write([Cell("many", f"k{i}", "v", 1) for i in range(5)])
    ask(store)
    before = _cursors()
    for _ in range(20):
        ask(store)
    assert _cursors() - before < 5
    store.close()


def _cursors() -> int:
    return sum(type(one).__name__ == "Cursor" for one in gc.get_objects())
