"""The floors of the house, held by a walk over every import.

The table is the architecture: a package may import itself, what stands in its row, and nothing else of
ours. Third-party packages enter at one place each.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

AIR = Path(__file__).parent.parent / "air"

FLOORS: dict[str, str] = {
    # ground
    "base": "",
    "pb": "",
    "codec": "base pb",
    # network tower
    "transport": "base",
    "negotiate": "base transport",
    "security": "base pb codec transport",
    "mux": "base transport",
    "swarm": "base codec transport negotiate security mux",
    "protocols": "base pb codec mux swarm",
    "dht": "base pb codec swarm",
    # data tower
    "model": "base",
    "store": "base model",
    "graph": "base model store",
    # bridge
    "sync": "base codec pb model store graph transport security mux swarm protocols",
    # roots
    "node": "base model store graph transport negotiate security mux swarm protocols dht sync",
    "testing": "base model store graph transport negotiate security mux swarm protocols sync",
    "sim": "base codec model store graph security mux sync",
    "daemon": "base model node sim",
}

DOORS: dict[str, str] = {
    "anyio": "base/waker transport negotiate security mux swarm protocols dht store/worker sync/exchange"
    " sync/hub sync/local sync/gun/session sync/native/session sync/native/carrier sync/repair/session"
    " sync/source sync/opening sync/blocking node daemon testing",
    "apsw": "store/file store/refusal",
    "Cryptodome": "security/psk",
    "cryptography": "base/keys base/public_key base/private_key security/noise security/tls",
    "dns": "transport/resolve",
    "google": "pb codec security protocols dht sync/native sync/repair",
    "hypercorn": "daemon/serve",
    "multiaddr": "base/address",
    "noise": "security/noise/core",
    "OpenSSL": "security/tls",
    "orjson": "model/value store/record sync/gun/reader sync/gun/writer sim/gun_json",
    "prometheus_client": "daemon/metrics",
    "starlette": "daemon/admin daemon/checking daemon/guard daemon/healing daemon/query daemon/stream",
    "uvloop": "daemon/run",
    "websockets": "transport/websocket",
    "zstandard": "codec/zstd",
}
"""Third-party package -> where it may be imported: modules, or whole packages."""

CORE_IMPORTS_NOT = {"anyio", "asyncio", "random", "socket", "threading", "trio"}
"""What computes does not wait, draw or listen. (Seeded generators are made in base/entropy.)"""

MODULES = sorted(AIR.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(AIR).with_suffix(""))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are written in full"
            assert node.module is not None
            yield node.module


def kind(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = doc.splitlines()[0] if doc else ""
    for word in ("core", "shell", "root"):
        if first.endswith(f"({word})"):
            return word
    return ""


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_down_the_floors(path: Path) -> None:
    own = name(path).split("/")[0]
    if own not in FLOORS:
        assert path.parent == AIR, f"{own} has no row in the table"
        return
    allowed = {own, *FLOORS[own].split()}
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "air" and len(parts) > 1:
            assert parts[1] in allowed, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_third_party_packages_enter_at_their_door(path: Path) -> None:
    for module in imports(path):
        top = module.split(".")[0]
        for door in DOORS.get(top, "").split():
            if name(path) == door or name(path).startswith(door + "/"):
                break
        else:
            assert top not in DOORS, f"{name(path)} imports {top}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.name not in ("__init__.py", "__main__.py")], ids=name
)
def test_a_module_says_which_kind_it_is_and_a_core_is_one(path: Path) -> None:
    said = kind(path)
    assert said, f"{name(path)}: the first line of the docstring ends in (core), (shell) or (root)"
    if said != "core":
        return
    tops = {module.split(".")[0] for module in imports(path)}
    if name(path) not in ("base/entropy",):
        assert not tops & CORE_IMPORTS_NOT, f"{name(path)} is a core and imports {tops & CORE_IMPORTS_NOT}"
    tree = ast.parse(path.read_text())
    waits = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    declared = any(
        isinstance(node, ast.ClassDef)
        and any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases)
        for node in ast.walk(tree)
    )
    assert not waits or declared, f"{name(path)} is a core and awaits"


def test_every_floor_stands() -> None:
    assert {path.name for path in AIR.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(
        FLOORS
    )


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 560, f"{name(path)}: two ideas in one room?"
