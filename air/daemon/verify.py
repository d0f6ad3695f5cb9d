"""``air verify``: what is damaged in a store, whether its daemon runs or not. (shell)"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Final

from air.base.errors import AirError, Corrupt, StoreError
from air.daemon.client import connect
from air.daemon.datadir import hold, is_held
from air.daemon.settings import Settings
from air.daemon.show import show, show_json
from air.node.check import Verification, check_store

__all__ = ["as_json", "verify"]

_WAIT_SECONDS: Final = 24 * 3600.0
"""A daemon checks in pieces, between which it works for others."""


def verify(args: Namespace, settings: Settings) -> None:
    """Print what was found. Raises Corrupt when something is damaged, StoreError when it cannot look."""
    config = settings.config
    folder = config.node.data
    if not folder.is_dir():
        raise StoreError(f"there is no data folder {folder}", code="store.none")
    found = _ask_daemon(settings) if is_held(folder) else None
    if found is None:
        # A daemon may begin meanwhile; then one of the two is refused the folder.
        with hold(folder):
            found = as_json(check_store(config))
    if args.json:
        show_json(found)
    else:
        _print(found)
    if not found["sound"]:
        raise Corrupt("the store is damaged")


def _ask_daemon(settings: Settings) -> Mapping[str, Any] | None:
    """What the daemon that holds the data folder says; None: it has just gone, or is no daemon."""
    try:
        client = connect(settings.config, None, None)
    except AirError as error:
        if error.code == "daemon.none":
            return None
        raise
    found: Mapping[str, Any] = json.loads(client.call("POST", "/v1/verify", seconds=_WAIT_SECONDS))
    return found


def as_json(found: Verification) -> dict[str, Any]:
    """What was found, as the command and the admin interface tell it."""
    return {
        "sound": found.sound,
        "records": found.cells,
        "damaged": found.damaged,
        "names": found.names,
        "faults": found.faults,
        "notes": found.notes,
    }


def _print(found: Mapping[str, Any]) -> None:
    show(f"records  {found['records']} sound, {found['damaged']} damaged")
    for soul, key in found["names"]:
        show(f"damaged  {soul}: {key}")
    if found["damaged"] > len(found["names"]):
        show(f"damaged  and {found['damaged'] - len(found['names'])} more")
    for fault in found["faults"]:
        show(f"fault    {fault}")
    for note in found["notes"]:
        show(f"note     {note}")
