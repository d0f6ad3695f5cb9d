"""Three daemons, one of which is cut off from the others without a word, while both sides go on writing.

The daemons run in network namespaces of their own (``namespaces``), or where those cannot be made behind
sockets of the test that hold back what is sent (``valves``). The cut takes 6 s in the suite and 60 s with
``AIR_FAULTS=full``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import pytest

from air.model.ham import wins
from tests.faults.daemon import Client, Daemon, Found
from tests.faults.netns import Namespaces, Valves, possible
from tests.faults.scale import FULL, seeded

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Network = Namespaces | Valves
NETWORKS: Final[list[type[Network]]] = [Namespaces] if possible() else [Valves]
if FULL and possible():
    NETWORKS.append(Valves)

CUT_SECONDS: Final = 60.0 if FULL else 6.0
CELLS: Final = 10_000 if FULL else 2_000
"""Written by each side while they are apart."""
SHARED: Final = 500 if FULL else 100
"""Of these, fields that the other side writes too."""
AGREE_SECONDS: Final = 5.0 if FULL else 15.0
"""In the suite other tests run beside, and only that they agree is of interest."""
NATIVE: Final = (
    {}
    if FULL
    else {"heartbeat_seconds": 0.4, "silent_seconds": 1.5, "retry_seconds": 0.5, "missing_seconds": 1.0}
)
"""The short form is less patient. The long one takes the settings as they come."""
DIALS: Final = {0: (1, 2), 1: (2,), 2: ()}
SIDES: Final = ((0,), (1, 2))


@pytest.fixture
def anyio_backend() -> str:
    """What is under test runs in other processes."""
    return "asyncio"


class Put(NamedTuple):
    """One message of a writer."""

    soul: str
    fields: dict[str, Any]


class Machines:
    """The three daemons, and how to reach them."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self._folder = network, folder
        # A thread each: namespaces are entered by threads, and a start takes a while.
        with ThreadPoolExecutor(len(DIALS)) as threads:
            self.daemons = list(threads.map(self._start, DIALS))

    def _start(self, number: int) -> Daemon:
        options = ["--listen", self.network.listen(number), "--backend", ("asyncio", "trio")[number % 2]]
        for peer in DIALS[number]:
            options += ["--peer", self.network.address(number, peer)]
        for key, value in NATIVE.items():
            options += ["--set", f"native.{key}={value}"]
        with self.network.inside(number):
            return Daemon(self._folder / f"air{number}", *options)

    async def client(self, number: int) -> Client:
        with self.network.inside(number):
            return await Client.dial(self.daemons[number].url)

    def health(self, number: int) -> dict[str, Any]:
        with self.network.inside(number):
            return self.daemons[number].health()[1]

    def metric(self, number: int, name: str) -> float:
        with self.network.inside(number):
            return self.daemons[number].metric(name)

    def command(self, number: int, *words: str) -> Any:
        """What a command of the command line prints."""
        given = [sys.executable, "-m", "air", *words, "--json", "--data", str(self.daemons[number].data)]
        with self.network.inside(number):
            done = subprocess.run(given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def conflicts(self, number: int) -> dict[tuple[str, str], tuple[Any, ...]]:
        """By field: values and states of the loser and the winner. No field has two."""
        found = self.command(number, "conflicts", "--limit", "100000")
        by_field = {
            (one["soul"], one["key"]): tuple(
                one[who][what] for who in ("lost", "won") for what in ("value", "state")
            )
            for one in found
        }
        assert len(by_field) == len(found)
        return by_field

    def stop(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.kill()


@pytest.fixture(params=NETWORKS, ids=lambda kind: kind.name)
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machines]:
    with ExitStack() as stack:
        network = stack.enter_context(request.param.made(len(DIALS)))
        made = Machines(network, tmp_path)
        stack.callback(made.stop)
        yield made


async def until(condition: Any, seconds: float, what: str) -> None:
    with anyio.move_on_after(seconds):
        while not condition():
            await anyio.sleep(0.05)
        return
    pytest.fail(f"not within {seconds} s: {what}")


def puts_of(name: str, count: int, value: str, width: int) -> list[Put]:
    """``count`` fields, so many of them in one node."""
    return [
        Put(f"{name}/{start // width}", {f"k{it}": f"{value} {it}" for it in range(start, start + width)})
        for start in range(0, count, width)
    ]


async def write(client: Client, puts: list[Put], seconds: float, acknowledged: Found) -> None:
    """Write over that long, each put once the one before was acknowledged."""
    began, clock = time.monotonic(), time.time
    for index, put in enumerate(puts):
        await anyio.sleep(max(0, began + seconds * index / len(puts) - time.monotonic()))
        state = clock() * 1000
        ack = await client.put(put.soul, put.fields, state)
        assert not ack.get("err"), ack
        for key, value in put.fields.items():
            acknowledged[put.soul, key] = (value, state)


def merged(*written: Found) -> Found:
    """What stands when everything has met."""
    stands: Found = {}
    for found in written:
        for place, (value, state) in found.items():
            if place not in stands or wins(value, state, *stands[place]):
                stands[place] = (value, state)
    return stands


async def test_a_network_that_was_cut_heals_and_tells_of_every_concurrent_edit(machines: Machines) -> None:
    random = seeded("split")
    network = machines.network
    clients = [await machines.client(number) for number in DIALS]
    await until(
        lambda: all(machines.health(number)["links"]["peer"] == 2 for number in DIALS), 15, "all linked"
    )
    linked = time.monotonic()

    before: Found = {}
    await write(clients[1], puts_of("both", SHARED // 2, "before", 5), 0, before)
    await agree(clients, before, 10)
    # A peer counts as expected once it was there for a while.
    await anyio.sleep(max(0, linked + 6 - time.monotonic()) if FULL else 0)

    network.cut(0)
    cut = time.monotonic()
    sides: list[Found] = [{}, {}]
    async with anyio.create_task_group() as tasks:
        for side, members in enumerate(SIDES):
            puts = puts_of("both", SHARED, f"side {side}", 5) + puts_of(
                f"side{side}", CELLS - SHARED, "x", 20
            )
            random.shuffle(puts)
            for turn, member in enumerate(members):
                share = puts[turn :: len(members)]
                tasks.start_soon(write, clients[member], share, CUT_SECONDS * 0.8, sides[side])
    missed = {0: {1, 2}, 1: {0}, 2: {0}} if FULL else {0: {1, 2}}
    ids = [machines.command(number, "id")["peer"] for number in DIALS]
    for number, away in missed.items():
        await until(lambda number=number: machines.health(number)["split"], CUT_SECONDS, "a split")
        health = machines.health(number)
        assert health["status"] == "ok"
        assert machines.metric(number, "air_split") == 1
        if number != 0:
            assert set(health["split"]["missing"]) == {ids[it] for it in away}
        assert len(health["split"]["missing"]) == len(away)
    # Nothing came through, and each side has all of its own.
    assert [machines.conflicts(number) for number in DIALS] == [{}, {}, {}]
    await agree(clients[1:], merged(before, sides[1]), 5)
    await anyio.sleep(max(0, cut + CUT_SECONDS - time.monotonic()))

    network.heal(0)
    healed = time.monotonic()
    stands = merged(before, *sides)
    assert len(stands) == 2 * CELLS - SHARED
    await agree(clients, stands, AGREE_SECONDS)
    print(f"{len(stands)} cells agreed {time.monotonic() - healed:.2f} s after a cut of {CUT_SECONDS:g} s")
    await until(lambda: all(machines.health(number)["split"] is None for number in DIALS), 5, "no split")
    for number in missed:
        assert (machines.metric(number, "air_split"), machines.metric(number, "air_splits")) == (0, 1)

    # Who had a value that lost against one it knew nothing of has noted that; nothing else was noted.
    shared = sides[0].keys() & sides[1].keys()
    assert len(shared) == SHARED
    expected: list[dict[tuple[str, str], tuple[Any, ...]]] = [{}, {}, {}]
    for place in shared:
        won = stands[place]
        side = 0 if won == sides[1][place] else 1
        for member in SIDES[side]:
            expected[member][place] = (*sides[side][place], *won)
    assert 0 < len(expected[0]) < SHARED
    for number in DIALS:
        assert machines.conflicts(number) == expected[number], f"machine {number}"

    await undo_one(machines, clients, ids, expected[0], stands)
    for number in DIALS:
        assert len(machines.conflicts(number)) == len(expected[number])
        machines.daemons[number].process.terminate()
    for client in clients:
        await client.aclose()
    assert [daemon.process.wait(15) for daemon in machines.daemons] == [0, 0, 0]


async def agree(clients: list[Client], wanted: Found, seconds: float) -> None:
    """Wait until every daemon has exactly these cells where they are."""
    souls = sorted({soul for soul, _ in wanted})
    # To read everything is work for a daemon that has better things to do, so first a sample has to be right.
    some = souls[:: max(len(souls) // 20, 1)]
    sample = {place: it for place, it in wanted.items() if place[0] in set(some)}
    left = list(clients)
    different = 0
    with anyio.move_on_after(seconds):
        while left:
            found = await left[0].read(some)
            if found == sample:
                found = await left[0].read(souls)
                if found == wanted:
                    del left[0]
                    continue
            different = sum(found.get(place) != it for place, it in sample.items()) or 1
            await anyio.sleep(0.05)
    assert not left, (
        f"{len(left)} daemons differ after {seconds} s, one in {different} of the cells looked at"
    )


async def undo_one(
    machines: Machines,
    clients: list[Client],
    ids: list[str],
    conflicts: dict[tuple[str, str], tuple[Any, ...]],
    stands: Found,
) -> None:
    """The command line tells what became of a field, and undoes it everywhere."""
    (soul, key), (lost, lost_state, won, won_state) = sorted(conflicts.items())[0]
    edits = machines.command(0, "history", soul, key)
    assert [(one["value"], one["state"], one["stands"]) for one in edits] == [
        (won, won_state, True),
        (lost, lost_state, False),
    ]
    assert edits[0]["writer"] in ids[1:]
    assert edits[1]["writer"] == ids[0]
    state = machines.command(0, "undo", str(edits[1]["conflict"]))["state"]
    await agree(clients, {**stands, (soul, key): (lost, state)}, AGREE_SECONDS)
    assert [one["value"] for one in machines.command(2, "history", soul, key) if one["stands"]] == [lost]
