"""``python -m air`` and the command ``air``. (root)"""

from __future__ import annotations

import sys

from air.daemon.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
