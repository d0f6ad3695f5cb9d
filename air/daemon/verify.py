"""``air verify``: what is damaged in the store of a daemon that does not run. (shell)"""

from __future__ import annotations

from argparse import Namespace

from air.base.errors import Corrupt, StoreError
from air.daemon.commands import show, show_json
from air.daemon.datadir import hold, is_held
from air.daemon.settings import Settings
from air.node.check import Verification, check_store

__all__ = ["verify"]


def verify(args: Namespace, settings: Settings) -> None:
    """Print what was found. Raises Corrupt when something is damaged, StoreError when it cannot look."""
    config = settings.config
    folder = config.node.data
    if not folder.is_dir():
        raise StoreError(f"there is no data folder {folder}", code="store.none")
    if is_held(folder):
        raise StoreError(
            f"a daemon is at work in {folder}; stop it first, or check a copy", code="store.locked"
        )
    with hold(folder):
        found = check_store(config)
    if args.json:
        show_json(
            {
                "sound": found.sound,
                "records": found.cells,
                "damaged": found.damaged,
                "names": found.names,
                "faults": found.faults,
                "notes": found.notes,
            }
        )
    else:
        _print(found)
    if not found.sound:
        raise Corrupt("the store is damaged")


def _print(found: Verification) -> None:
    show(f"records  {found.cells} sound, {found.damaged} damaged")
    for soul, key in found.names:
        show(f"damaged  {soul}: {key}")
    if found.damaged > len(found.names):
        show(f"damaged  and {found.damaged - len(found.names)} more")
    for fault in found.faults:
        show(f"fault    {fault}")
    for note in found.notes:
        show(f"note     {note}")
