"""The graph without await: in scripts, in a notebook whose loop is running, and under Ctrl-C."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import air
from air import Change, Link
from air.base.errors import AirError, Closed
from air.sync.blocking import BlockingGraph, BlockingRef

BACKENDS = ["asyncio", "trio"]


@pytest.fixture(params=BACKENDS)
def graph(request: pytest.FixtureRequest) -> Iterator[BlockingGraph]:
    with air.sync.open(backend=request.param) as graph:
        yield graph


def loops() -> int:
    """Threads with an event loop of ours; trio keeps idle workers for a while."""
    return sum("portal" in thread.name for thread in threading.enumerate())


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_everything_works_without_await(graph: BlockingGraph) -> None:
    ann, bob = graph.get("ann"), graph.get("bob")
    receipt = graph.put({"ann": {"name": "Ann"}, "bob": {"name": "Bob", "pet": {"name": "Tom"}}})
    assert receipt.cells == 4
    assert graph.put("ann", {"age": 7}).cells == 1
    assert ann.put({"boss": bob}).cells == 1
    assert ann.get("boss", "city").put("Hue").cells == 1
    assert ann.once() == {"name": "Ann", "age": 7, "boss": bob}
    assert ann.once(depth=2)["boss"] == {"name": "Bob", "city": "Hue", "pet": graph.get("bob/pet")}
    boss = ann.get("boss").resolve()
    assert isinstance(boss, BlockingRef)
    assert boss == bob == ann.get("boss").once(depth=0)
    assert graph.get("nobody", "x").resolve() is None
    assert len({boss, bob}) == 1
    assert repr(ann.get("boss")) == "Ref('ann', 'boss')"
    friends = ann.get("friends")
    member = friends.add({"n": 1})
    friends.set(bob)
    friends.add(Link("ann"))
    assert set(friends.map().once(depth=0)) == {member.soul, "bob", "ann"}
    assert friends.map().get("name").once() == {"bob": "Bob", "ann": "Ann"}
    assert list(friends.range(prefix="b").once()) == ["bob"]
    assert friends.unset(bob) == 1
    assert ann.get("boss").back() == ann
    root = ann.back()
    assert isinstance(root, BlockingGraph)
    assert root.get("ann").get("name").once() == "Ann"
    assert not graph.online


def test_a_loop_over_changes_blocks_until_one_comes(graph: BlockingGraph) -> None:
    name = graph.get("ann", "name")
    name.put("first")
    timer = threading.Timer(0.05, lambda: name.put("second"))
    timer.start()
    seen = []
    for change in name.on():
        assert isinstance(change, Change)
        seen.append(change.value)
        if change.value == "second":
            break
    assert seen == ["first", "second"]
    with graph.get("ann").on(whole=True) as values, graph.get("ann").map() as entries:
        assert next(values) == {"name": "second"}
        assert next(entries) == ("name", "second")
        with pytest.raises(TimeoutError):
            values.next(timeout=0.01)
        name.put("third")
        assert values.next(timeout=5) == {"name": "third"}
    with pytest.raises(StopIteration):
        next(values)


def test_errors_come_out_as_they_are(graph: BlockingGraph) -> None:
    with pytest.raises(AirError) as caught:
        graph.put("a", {"x": [1]})
    assert caught.value.code == "graph.bad-value"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_may_be_closed_at_any_time_and_more_than_once(backend: Any, tmp_path: Path) -> None:
    threads = loops()
    graph = air.sync.open(tmp_path, backend=backend)
    graph.put("ann", {"name": "Ann"})
    changes = graph.get("ann").on()
    next(changes)
    graph.close()
    graph.close()
    changes.close()
    assert loops() == threads
    for use in (lambda: graph.get("ann").once(), lambda: next(changes), lambda: graph.put("a", {"b": 1})):
        with pytest.raises(Closed) as caught:
            use()
        assert caught.value.code == "graph.closed"
    with air.sync.open(tmp_path, backend=backend) as again:
        assert again.get("ann").once() == {"name": "Ann"}


def test_a_folder_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    with air.sync.open(tmp_path):
        threads = loops()
        with pytest.raises(AirError) as caught:
            air.sync.open(tmp_path)
        assert caught.value.code == "store.locked"
        assert loops() == threads


def test_it_works_where_an_event_loop_is_running_as_in_a_notebook() -> None:
    async def cell() -> Any:
        graph = air.sync.open()
        try:
            graph.get("counter", "n").put(1)
            with graph.get("counter", "n").on() as changes:
                return next(changes).value
        finally:
            graph.close()

    assert asyncio.run(cell()) == 1


def test_ctrl_c_ends_what_waits_and_the_graph_goes_on(graph: BlockingGraph) -> None:
    name = graph.get("ann", "name")
    name.put("Ann")
    hub: Any = graph._loop.graph._source._hub  # type: ignore[attr-defined]
    links = set(hub._links)
    changes = name.on()
    assert next(changes).value == "Ann"
    for _ in range(3):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(changes)
    name.put("Anna")
    # It was only the waiting that ended; what is held open goes on.
    assert next(changes).value == "Anna"
    del changes
    gc.collect()
    until(lambda: set(hub._links) == links)


def test_threads_may_share_a_graph(graph: BlockingGraph) -> None:
    def write(number: int) -> None:
        for count in range(20):
            graph.put(f"t{number}", {f"k{count}": count})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(graph.get(f"t{number}").once()) for number in range(4)] == [20] * 4


def test_a_script_that_just_ends_has_written_everything(tmp_path: Path) -> None:
    script = "import air; g = air.sync.open('data', durability='memory'); g.put('ann', {'name': 'Ann'})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    with air.sync.open(tmp_path / "data") as graph:
        assert graph.get("ann", "name").once() == "Ann"


def test_importing_air_brings_no_event_loop() -> None:
    script = (
        "import sys, air; print([m for m in ('anyio', 'asyncio', 'apsw', 'air.sync') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
