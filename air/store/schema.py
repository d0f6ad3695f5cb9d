"""The layout of a store's file, and the way from each older one to it. (core)

``cell`` holds the graph. Its ``crc`` covers soul, key, state and value, and is combined with a CRC-32 of
``mark`` by exclusive or: so a cell of format 1, which had no mark, is a sound one with an empty mark.
``writer`` gives the peers that marks speak of short numbers. ``conflict`` is the journal of edits that lost
against others nobody knew of. ``span`` holds counts and sums over neighbouring cells (see ``spans``).
``meta`` holds single entries by name.
"""

from __future__ import annotations

from typing import Final

__all__ = ["APPLICATION", "FORMAT", "upgrade"]

FORMAT: Final = 2
"""Version of the file's layout, kept in SQLite's ``user_version``. A file with a higher one is refused."""

APPLICATION: Final = 0x41_49_52_01
"""Marks a SQLite file as Air's (``application_id``)."""

_FIRST: Final = f"""
CREATE TABLE cell(
    soul BLOB NOT NULL, key BLOB NOT NULL, state REAL NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY(soul, key)
) WITHOUT ROWID;
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = 1;
"""

# A new column with a constant default touches no row, so this takes no time however large the file is.
_SECOND: Final = """
ALTER TABLE cell ADD COLUMN mark BLOB NOT NULL DEFAULT x'';
CREATE TABLE writer(id INTEGER PRIMARY KEY, peer BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE conflict(
    id INTEGER PRIMARY KEY, soul BLOB NOT NULL, key BLOB NOT NULL, record BLOB NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE span(
    soul BLOB NOT NULL, key BLOB NOT NULL, count INTEGER NOT NULL, sum BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY(soul, key)
) WITHOUT ROWID;
PRAGMA user_version = 2;
"""

_STEPS: Final = (_FIRST, _SECOND)


def upgrade(version: int) -> str:
    """SQL that brings a file of format ``version`` (0: an empty one) to FORMAT; empty when it is that."""
    steps = "".join(_STEPS[version:])
    return f"BEGIN IMMEDIATE; {steps} COMMIT" if steps else ""
