"""Recorded vectors: read by name from the folder in AIR_VECTORS, else from tests/vectors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["folder", "load"]


def folder() -> Path:
    """The folder that holds ``gun/`` and ``libp2p/``."""
    return Path(os.environ.get("AIR_VECTORS") or Path(__file__).parent / "vectors")


def load(name: str) -> Any:
    """The parsed file ``name``, such as ``gun/ham.json``. Lone surrogates in its texts are kept."""
    return json.loads((folder() / name).read_text(encoding="utf-8"))
