"""Printing what a command has to say. (shell)"""

from __future__ import annotations

import json
import sys

__all__ = ["show", "show_json"]


def show(text: str) -> None:
    """Print a line. Text that UTF-8 cannot carry (a lone surrogate) is shown as ``?``."""
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()


def show_json(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    show(text)
