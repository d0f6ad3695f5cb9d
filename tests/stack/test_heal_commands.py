"""``air sync``, ``conflicts``, ``history`` and ``undo`` between daemons that are not linked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.stack.daemons import Daemon, stopped

PAGE: Final = Path(__file__).parents[2] / "docs" / "healing.md"
FAR_AWAY: Final = "/ip4/192.0.2.7/tcp/8764"
"""What the page calls the other peer."""


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons that know nothing of each other and have written the same field."""

    def start(backend: str) -> Daemon:
        return Daemon(tmp_path / backend, "--listen", "/ip4/127.0.0.1/tcp/0", "--backend", backend)

    with ThreadPoolExecutor(2) as threads:
        here, there = threads.map(start, ("asyncio", "trio"))
    with stopped((here, there)):
        here.put("menu", {"soup": "leek", "tea": "mint"})
        here.put("apple", {"x": 1, "y": 2})
        there.put("menu", {"soup": "pea"})
        there.put("zoo", {"x": 3})
        yield here, there


def test_sync_counts_and_then_moves_exactly_the_range(apart: tuple[Daemon, Daemon]) -> None:
    here, there = apart
    counted = here.json("sync", there.native, "--dry-run")
    assert (counted["sent"], counted["received"], counted["equal"]) == (4, 2, False)
    assert there.get("apple") is None
    assert here.get("zoo") is None

    counted = here.json("sync", there.native, "--range", "a..menu", "--dry-run")
    assert (counted["sent"], counted["received"]) == (2, 0)
    moved = here.json("sync", there.native, "--range", "a..menu")
    assert (moved["sent"], moved["received"], moved["equal"]) == (2, 0, True)
    assert there.get("apple") == {"x": 1, "y": 2}
    assert there.get("menu") == {"soup": "pea"}
    assert here.get("menu") == {"soup": "leek", "tea": "mint"}

    moved = here.json("sync", there.native, "--range", "n..")
    assert (moved["sent"], moved["received"]) == (0, 1)
    moved = here.json("sync", there.native, "--range", "..zoo")
    assert (moved["sent"], moved["received"]) == (1, 1)
    assert here.get("menu") == there.get("menu") == {"soup": "pea", "tea": "mint"}
    # By its id, as it is connected; and equal graphs know it after one round trip.
    again = here.json("sync", there.peer)
    assert (again["sent"], again["received"], again["equal"], again["rounds"]) == (0, 0, True, 1)


def test_a_conflict_is_listed_told_and_undone(apart: tuple[Daemon, Daemon]) -> None:
    here, there = apart
    assert here.json("conflicts") == there.json("conflicts") == []
    assert here.air("sync", there.native).stdout.startswith("cells sent: 3, received: 2\n")
    # Only who held the value that lost has seen both.
    assert there.json("conflicts") == []
    [conflict] = here.json("conflicts")
    assert (conflict["soul"], conflict["key"]) == ("menu", "soup")
    assert (conflict["lost"]["value"], conflict["lost"]["writer"]) == ("leek", here.peer)
    assert (conflict["won"]["value"], conflict["won"]["writer"]) == ("pea", there.peer)
    assert here.json("conflicts", "--soul", "menu") == [conflict]
    assert here.json("conflicts", "--soul", "apple") == []

    edits = here.json("history", "menu", "soup")
    assert [(it["value"], it["stands"], it["writer"]) for it in edits] == [
        ("pea", True, there.peer),
        ("leek", False, here.peer),
    ]
    assert [it["key"] for it in here.json("history", "menu")] == ["soup", "soup", "tea"]
    assert [it["writer"] for it in there.json("history", "menu", "tea")] == [here.peer]

    here.json("undo", str(conflict["id"]))
    here.json("sync", there.native)
    assert here.get("menu") == there.get("menu") == {"soup": "leek", "tea": "mint"}
    # Who undoes has seen both, so that is no further conflict, here or there.
    assert here.json("conflicts") == [conflict]
    assert there.json("conflicts") == []
    # Nor is what follows on it.
    there.put("menu", {"soup": "onion"})
    here.json("sync", there.native)
    assert here.get("menu") == {"soup": "onion", "tea": "mint"}
    assert here.json("conflicts") == [conflict]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("undo", "7"), 3, "no conflict 7"),
        (("undo", "soup"), 2, "number of a conflict"),
        (("sync", "/ip4/127.0.0.1/tcp/1"), 1, "cannot be reached"),
        (("sync", "soup"), 2, "not a peer id"),
        (("sync", "/soup"), 2, "soup"),
        (("sync", "/ip4/127.0.0.1/tcp/1", "--range", "soup"), 2, "A..B"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, tuple) else "",
)
def test_what_cannot_be_done_is_said(alone: Daemon, words: tuple[str, ...], code: int, text: str) -> None:
    done = alone.air(*words)
    assert done.returncode == code
    assert text in done.stderr
    assert done.stdout == ""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("alone") / "air", "--listen", "/ip4/127.0.0.1/tcp/0")
    with stopped([daemon]):
        yield daemon


def test_every_command_of_the_page_about_healing_works_in_its_order(apart: tuple[Daemon, Daemon]) -> None:
    here, there = apart
    commands = re.findall(r"^\$ air (.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) > 8
    printed = {}
    for command in commands:
        done = here.air(*shlex.split(command.replace(FAR_AWAY, there.native)))
        assert done.returncode == 0, f"air {command}: {done.stderr}"
        printed[command] = done.stdout
    assert "split: null" in printed["health"]
    assert "air_split 0.0" in printed["metrics"]
    assert '"leek"' in printed["conflicts"]
    assert "stands" in printed["history menu soup"]
    assert here.get("menu") == {"soup": "leek", "tea": "mint"}
