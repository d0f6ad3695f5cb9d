"""The examples of the graph API, run as their users run them, against a real daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import air
from tests.interop.relays import AirDaemon

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "python-api.md").read_text()
EXAMPLES = ["chat.py", "counter.py", "fastapi_stream.py"]
SECONDS = 20.0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A daemon that runs beside a test without an event loop."""
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        starting = portal.wrap_async_context_manager(AirDaemon.start(tmp_path / "daemon"))
        with starting as daemon:
            yield daemon.url


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_on_a_slide(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) <= 25


class Terminal:
    """A program with someone who types into it and reads what it prints."""

    def __init__(self, *command: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            **options,
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def sees(self, text: str) -> None:
        until(lambda: any(text in line for line in list(self.lines)), lambda: "".join(self.lines))


@contextmanager
def terminal(*command: str, **options: Any) -> Iterator[Terminal]:
    one = Terminal(*command, **options)
    try:
        yield one
    finally:
        assert one.process.stdin is not None
        one.process.stdin.close()
        try:
            one.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            one.process.kill()
            raise


def until(condition: Callable[[], Any], told: Callable[[], str] = str) -> Any:
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, told()
        time.sleep(0.01)
    return found


def test_two_terminals_chat(url: str) -> None:
    with terminal("examples/chat.py", url, "Ann") as ann, terminal("examples/chat.py", url, "Bob") as bob:
        ann.type("Hello?")
        bob.sees("Ann: Hello?")
        bob.type("Hello Ann")
        ann.sees("Bob: Hello Ann")
        with terminal("examples/chat.py", url, "Cat") as cat:
            cat.sees("Ann: Hello?")
            cat.sees("Bob: Hello Ann")
    assert [ann.process.returncode, bob.process.returncode, cat.process.returncode] == [0, 0, 0]


def test_a_notebook_counts_with_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIR_URL", url)
    cells = (ROOT / "examples" / "counter.py").read_text().split("# %%")

    async def notebook() -> dict[str, Any]:
        # A notebook runs its cells inside a running event loop.
        names: dict[str, Any] = {}
        for cell in cells:
            exec(compile(cell.partition("\n")[2], "cell", "exec"), names)
        return names

    with air.sync.connect(url) as others:
        for _ in range(4):
            others.get("counter", "clicks").add(1)
        names = anyio.run(notebook)
        assert names["count"] == 5
        assert len(others.get("counter", "clicks").map().once()) == 5


@pytest.mark.parametrize("worker", ["asyncio", "trio"])
def test_a_web_page_follows_a_node(url: str, worker: str, tmp_path: Path) -> None:
    config = tmp_path / "server.py"
    config.write_text(
        "import anyio, hypercorn.config, sys\n"
        f"from hypercorn.{worker} import serve\n"
        "from fastapi_stream import app\n"
        "config = hypercorn.config.Config()\n"
        "config.bind = ['127.0.0.1:0']\n"
        "config.accesslog = None\n"
        f"anyio.run(serve, app, config, backend={worker!r})\n"
    )
    example = (ROOT / "examples" / "fastapi_stream.py").read_text()
    (tmp_path / "fastapi_stream.py").write_text(example.replace("ws://127.0.0.1:8765/gun", url))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with air.sync.connect(url) as graph, terminal(str(config), env=environ) as server:
        graph.put("ann", {"name": "Ann", "boss": {"name": "Bob"}})
        line = until(
            lambda: next((line for line in list(server.lines) if "Running on" in line), None),
            lambda: "".join(server.lines),
        )
        host = line.partition("http://")[2].split()[0]
        with urllib.request.urlopen(f"http://{host}/live/ann", timeout=SECONDS) as page:
            events = (json.loads(line[6:]) for line in page if line.startswith(b"data: "))
            assert next(events) == {"name": "Ann", "boss": {"#": "ann/boss"}}
            graph.get("ann", "name").put("Anna")
            assert next(events)["name"] == "Anna"
        server.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("loop", ["", ', backend="trio"'])
def test_the_page_begins_with_a_program_that_works(loop: str, tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    script = program.replace("anyio.run(main)", f"anyio.run(main{loop})")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert "'home': Ref('ann/home')" in done.stdout
    assert done.stdout.endswith("Hue\n")
