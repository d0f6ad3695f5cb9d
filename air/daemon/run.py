"""The daemon: settings become a relay with an admin interface, until it is told to stop. (root)"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import TaskStatus

from air import __version__
from air.base.clock import SystemClock
from air.base.groups import first
from air.daemon.datadir import DaemonFile, hold, load_or_create_token, write_daemon_file
from air.daemon.logs import logging_to
from air.daemon.memory import collect_when_idle, quieten
from air.daemon.ports import Relay
from air.daemon.trim import keep_large_apart, trim_when_moved
from air.node.config import Config

__all__ = ["RelayFactory", "run"]

RelayFactory: TypeAlias = Callable[[Config], AbstractAsyncContextManager[Relay]]

_LOG: Final = logging.getLogger("air.daemon")
_GRACE_SECONDS: Final = 3.0


def run(config: Config, *, json_line: bool = False, relay: RelayFactory | None = None) -> None:
    """Serve until SIGTERM, SIGINT or ``air stop``; returns once everything is put away.

    Prints one line with the addresses when it is ready: JSON with ``json_line``. Raises AirError when
    it cannot start, StoreError ``store.locked`` when another daemon holds the data folder. Another
    ``relay`` can be given for tests.
    """
    # The database, its journal and whatever else is written are nobody else's business.
    os.umask(0o077)
    keep_large_apart()
    with logging_to(config.log), hold(config.node.data):
        options = {}
        if config.node.backend == "asyncio":
            options["use_uvloop"] = importlib.util.find_spec("uvloop") is not None
        cut_off = threading.Timer(config.node.stop_seconds + _GRACE_SECONDS, os._exit, [1])
        cut_off.daemon = True
        try:
            anyio.run(
                _serve,
                config,
                json_line,
                relay,
                cut_off,
                backend=config.node.backend,
                backend_options=options,
            )
        except BaseExceptionGroup as group:
            raise first(group) from group
        finally:
            cut_off.cancel()


async def _serve(
    config: Config, json_line: bool, factory: RelayFactory | None, cut_off: threading.Timer
) -> None:
    stop, closing = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        await tasks.start(_signals, stop)
        async with _relay(config, factory) as relay:
            # Imported once the relay is up, so that its peers need not wait for these libraries.
            from air.daemon.admin import admin_app
            from air.daemon.checking import checking_routes
            from air.daemon.healing import healing_routes
            from air.daemon.serve import bind, serving, url_of

            token = load_or_create_token(config.token_path)
            listener = bind(config.admin)
            info = _info(config, relay, url_of(listener))
            app = admin_app(
                relay.hub,
                config=config.admin,
                token=token,
                bound=str(listener.getsockname()[0]),
                info=info,
                stop=stop.set,
                closing=closing,
                clock=SystemClock(),
                more=[*healing_routes(relay), *checking_routes(relay)],
            )
            quieten()
            tasks.start_soon(collect_when_idle, lambda: relay.hub.messages)
            # A peer that only sends what is refused says no messages, but it had to come.
            counts = relay.hub.counters
            tasks.start_soon(trim_when_moved, lambda: relay.hub.messages + counts.get("tcp_accepted"))
            async with serving(app, listener, closing, backend=config.node.backend):
                write_daemon_file(config.node.data, DaemonFile(str(info["admin"]), os.getpid()))
                _announce(info, json_line)
                await stop.wait()
                _LOG.info("stopping")
                # Everything acknowledged is on disk already. What could still hang is a goodbye to a peer
                # that does not listen, and nobody wants to reach for kill -9.
                cut_off.start()
        _LOG.info("stopped")
        tasks.cancel_scope.cancel()


def _relay(config: Config, factory: RelayFactory | None) -> AbstractAsyncContextManager[Relay]:
    if factory is None:
        from air.node.relay import Relay as built_in

        return built_in(config)
    return factory(config)


def _info(config: Config, relay: Relay, admin: str) -> Mapping[str, object]:
    return {
        "version": __version__,
        "peer": relay.hub.peer_id,
        "gun": list(relay.gun_addresses),
        "native": list(relay.native_addresses),
        "admin": admin,
        "data": str(config.node.data),
    }


def _announce(info: Mapping[str, Any], json_line: bool) -> None:
    if json_line:
        text = json.dumps(info)
    else:
        lines = [f"Air {info['version']} is ready, peer {info['peer']}"]
        lines += [f"  gun    {address}" for address in info["gun"]]
        lines += [f"  native {address}" for address in info["native"]]
        lines += [f"  admin  {info['admin']}", f"  data   {info['data']}"]
        text = "\n".join(lines)
    try:
        print(text, flush=True)
    except OSError:
        # Nobody listens, which is no reason to stop; Python must not fail on it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _signals(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    """The first signal drains; the second ends the process where it stands, as a crash would."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            if stop.is_set():
                os._exit(128 + number)
            stop.set()
