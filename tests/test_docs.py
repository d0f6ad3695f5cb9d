"""The README is a contract: every command in it is run, every example works, every link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("examples/*/*.md")]
)


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def until(check: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """As a new user has them, but for free ports: other tests may hold the usual ones."""
    # What `make test` was told is not for the commands under test.
    own = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MFLAGS")}
    return own | {
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "AIR_GUN__PORT": "0",
        "AIR_ADMIN__PORT": "0",
        "AIR_NATIVE__LISTEN": "/ip4/127.0.0.1/tcp/0",
    }


@contextmanager
def daemon(command: str, surroundings: dict[str, str], out: Path) -> Iterator[Callable[[], str]]:
    """A command that goes on until it is stopped; yields what it has printed so far."""
    with out.open("w") as sink:
        process = subprocess.Popen(
            command, shell=True, cwd=ROOT, env=surroundings, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        until(lambda: "is ready" in out.read_text() or process.poll() is not None)
        assert process.poll() is None, out.read_text()
        yield out.read_text
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_every_command_of_the_readme_works_in_the_order_it_stands(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    todo = commands()
    assert todo.pop(0) == "make run"
    serving = next(command for command in todo if "--static" in command)
    joining = next(command for command in todo if "--peer" in command)
    todo.remove(joining)
    first, second = todo[: todo.index(serving)], todo[todo.index(serving) + 1 :]
    with daemon("make run", surroundings, tmp_path / "first.log") as printed:
        address = re.search(r"native (\S+)", until(printed))
        assert address is not None
        there = joining.replace("/ip4/127.0.0.1/tcp/8764", address[1])
        for command in [*first, *second]:
            done = subprocess.run(
                command, shell=True, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            if command.endswith("air get ann"):
                assert "Ann" in done.stdout
                assert "7" in done.stdout
                with daemon(there, surroundings | {"HOME": str(tmp_path)}, tmp_path / "joined.log"):
                    until(partial(_has_heard_of_ann, tmp_path / "second"))
    with daemon(serving, surroundings, tmp_path / "second.log") as printed:
        url = until(lambda: re.search(r"ws(://\S+?)/gun", printed()))[1]
        page = urllib.request.urlopen(f"http{url}/", timeout=10).read().decode()
        assert "gun.js" in page
        assert urllib.request.urlopen(f"http{url}/vendor/gun.js", timeout=10).status == 200


def _has_heard_of_ann(data: Path) -> bool:
    reading = [".venv/bin/air", "get", "ann", "name", "--data", str(data)]
    return subprocess.run(reading, cwd=ROOT, capture_output=True).stdout == b"Ann\n"


def test_the_second_make_run_is_ready_within_three_seconds(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    start = time.monotonic()
    with daemon("make run", surroundings, tmp_path / "log"):
        assert time.monotonic() - start < 3


def test_python_examples_run_on_both_event_loops(tmp_path: Path) -> None:
    for number, example in enumerate(blocks("python")):
        for loop in ("", ', backend="trio"'):
            script = tmp_path / f"example{number}.py"
            script.write_text(example.replace("anyio.run(main)", f"anyio.run(main{loop})"))
            done = subprocess.run(
                [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            assert "Ann" in done.stdout
        shutil.rmtree(tmp_path / "data")


def test_configuration_examples_are_read_without_complaint() -> None:
    from air.node.config import keys

    known = {name for name, _, _ in keys()}
    for example in blocks("toml"):
        for section, entries in tomllib.loads(example).items():
            for key in entries:
                assert f"{section}.{key}" in known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tree_names_no_machine_and_no_registry() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    # Put together here, so that this file does not hold them either.
    parts = [
        ("regis", "try\\.npm"),
        ("py", "pi\\.org"),
        ("--index", "-url"),
        ('"resolved"', ': "http'),
        ("GO", "PROXY="),
    ]
    words = re.compile("|".join("".join(part) for part in parts))
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix not in (".png",) and path.is_file():
            found = words.search(path.read_text(errors="replace"))
            assert found is None, (name, found)
