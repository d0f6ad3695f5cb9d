"""The other implementations: what each can, where it lies, how to start it.

Products that are built lie outside the tree, in a folder named by a hash of their sources, so that a change
of the sources is a new product and a stale one is never run. scripts/interop.sh computes the same names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["AIR", "ALWAYS", "FOREIGN", "HERE", "PEERS", "ROOT", "Peer"]

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
NODE_MAJOR_MIN: Final = 20


@dataclass(frozen=True, slots=True)
class Peer:
    """One implementation and the layers it has."""

    name: str
    transports: tuple[str, ...]
    securities: tuple[str, ...]
    muxers: tuple[str, ...]
    ops: tuple[str, ...]
    """What its dialer can be asked to do."""

    def command(self) -> list[str]:
        """The words that start it, without `listen` or `dial`."""
        return _command(self.name)

    def missing(self) -> str | None:
        """Why it cannot be run here, or None when it can."""
        return _missing(self.name)


_ALL_OPS: Final = ("identify", "ping", "echo", "half-close", "reset", "perf")

AIR: Final = Peer("air", ("tcp", "ws"), ("noise", "tls"), ("yamux", "mplex"), _ALL_OPS)
FOREIGN: Final = (
    Peer("js", ("tcp", "ws"), ("noise", "tls"), ("yamux", "mplex"), _ALL_OPS),
    Peer("py", ("tcp", "ws"), ("noise", "tls"), ("yamux", "mplex"), _ALL_OPS),
    Peer("go", ("tcp", "ws"), ("noise", "tls"), ("yamux",), _ALL_OPS),
    Peer("rust", ("tcp", "ws"), ("noise", "tls"), ("yamux", "mplex"), _ALL_OPS),
)
ALWAYS: Final = ("js", "py")
"""Brought by `make test`; the others are tested wherever they have been built."""
PEERS: Final = {peer.name: peer for peer in (AIR, *FOREIGN)}


def _products() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "air-interop"


def _product(name: str, sources: Sequence[str]) -> Path:
    digest = hashlib.sha256(b"".join((HERE / source).read_bytes() for source in sources))
    return _products() / f"{name}-{digest.hexdigest()[:16]}"


@cache
def _command(name: str) -> list[str]:
    match name:
        case "air":
            return [sys.executable, "-m", "air", "interop"]
        case "js":
            return [_node() or "node", str(HERE / "peer.mjs")]
        case "py":
            python = _product("py", ["requirements.txt"]) / "bin" / "python"
            return [str(python), str(HERE / "peer.py")]
        case "go":
            return [str(_product("go", ["go/go.mod", "go/main.go", "go/kad.go"]) / "peer")]
        case "rust":
            sources = [f"rust/{name}" for name in ("Cargo.toml", "src/main.rs", "src/kad.rs", "src/serve.rs")]
            return [str(_product("rust", sources) / "peer")]
    raise ValueError(name)


@cache
def _node() -> str | None:
    """The system's Node.js when it is new enough, else the one that scripts/interop.sh has fetched."""
    system = shutil.which("node")
    if system is not None:
        words = [system, "-p", "parseInt(process.versions.node)"]
        if int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) >= NODE_MAJOR_MIN:
            return system
    made = _product("node", ["node/package.json", "node/package-lock.json"])
    if not (made / ".complete").exists():
        return None
    return next((str(found) for found in made.glob("node_modules/node-linux-*/bin/node")), None)


@cache
def _missing(name: str) -> str | None:
    if name == "air":
        return None
    if name == "js":
        if _node() is None:
            return f"js-libp2p needs Node.js {NODE_MAJOR_MIN} or newer; run: bash scripts/interop.sh js"
        if not (ROOT / "node_modules" / "libp2p" / "package.json").exists():
            return "libp2p is not in node_modules; run: bash scripts/interop.sh js"
        return None
    made = Path(_command(name)[0])
    if not made.exists() or (name == "py" and not (made.parents[1] / ".complete").exists()):
        return f"the {name} peer is not built; run: bash scripts/interop.sh {name}"
    return None
