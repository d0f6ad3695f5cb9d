"""The command line: what the user typed becomes settings and a command. (root)

Everything a command does not need is imported where it is used: ``air get`` is done before the
daemon's libraries would have loaded.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final, NoReturn

from air import __version__
from air.base.errors import AirError, ConfigError, Denied, Misuse
from air.daemon.settings import Flag, Settings, load

__all__ = ["main"]

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
NO_DAEMON: Final = 4
DENIED: Final = 5

_SUMMARIES: Final = {
    "run": "start the daemon (also when no command is given)",
    "put": 'write fields of a node; a value is JSON or text, a link is {"#":"soul"}',
    "get": "read a node or one field",
    "watch": "print a node or one field, then each change",
    "peers": "list the links to peers",
    "id": "print the peer id of the daemon",
    "health": "tell whether the daemon is well",
    "metrics": "print the counters of the daemon",
    "verify": "check every record of a store, while its daemon runs or not",
    "sim": "simulate whole networks and their faults under one seed",
    "sync": "make the graph and that of a peer equal, now",
    "conflicts": "list edits that lost against others which nobody knew of",
    "history": "tell what became of a field",
    "undo": "write the value that lost a conflict once more",
    "stop": "stop the daemon and wait for its end",
    "config": "print the settings in force and where each came from",
    "stack": "show the network layers that a node can be made of",
    "interop": "talk to other libp2p peers: ping, listen, dial",
}
_WORDS: Final[dict[str, tuple[str, int, int | None]]] = {
    "put": ("SOUL KEY=VALUE …", 2, None),
    "get": ("SOUL [KEY]", 1, 2),
    "watch": ("SOUL [KEY]", 1, 2),
    "sync": ("PEER", 1, 1),
    "history": ("SOUL [KEY]", 1, 2),
    "undo": ("CONFLICT", 1, 1),
}
"""What a command takes beside options: in words, at least, at most."""
_SWITCHES: Final = frozenset(
    {"--json", "--dry-run", "--reverse", "--states", "--template", "-h", "--help", "--version"}
    | {"--chaos", "--no-tight", "--shrink", "--tight"}
)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Misuse(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code, see the constants above."""
    command = "air"
    try:
        command, options, words = _split(list(sys.argv[1:] if arguments is None else arguments))
        return _perform(command, options, words)
    except KeyboardInterrupt:
        # A watch has no other end than this one.
        return OK if command == "watch" else 128 + 2
    except BrokenPipeError:
        # The reader has seen enough (air get … | head). Keep Python from trying once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except AirError as error:
        return _failed(error, error.message or error.code, _exit_code(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(error, f"{where}{error.strerror or error}", FAILURE)
    except Exception as error:
        return _failed(
            error, f"unexpected {type(error).__name__}: {error} (AIR_DEBUG=1 shows where)", FAILURE
        )


def _failed(error: Exception, text: str, code: int) -> int:
    if os.environ.get("AIR_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    line = " ".join(text.split())
    sys.stderr.buffer.write(f"air: {line}\n".encode("utf-8", "replace"))
    sys.stderr.buffer.flush()
    return code


_CODES: Final = {"node.not-found": NOT_FOUND, "journal.no-conflict": NOT_FOUND, "daemon.none": NO_DAEMON}


def _exit_code(error: AirError) -> int:
    if isinstance(error, Denied):
        return DENIED
    if isinstance(error, Misuse) or (isinstance(error, ConfigError) and error.code.startswith("config.")):
        return USAGE
    return _CODES.get(error.code, FAILURE)


def _split(arguments: list[str]) -> tuple[str, list[str], list[str]]:
    """The command, its options and its words. Options may stand anywhere; after ``--`` there are none.

    argparse cannot do this: it takes words apart at options, and loses ``--`` on the way.
    """
    options: list[str] = []
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            words += rest
        elif word.startswith("-") and word != "-":
            options.append(word)
            if "=" not in word and word not in _SWITCHES:
                options += [value for value in [next(rest, None)] if value is not None]
        else:
            words.append(word)
    if not words:
        return ("help" if {"-h", "--help"} & set(options) else "run"), options, []
    command = words.pop(0)
    if command not in _SUMMARIES:
        import difflib

        near = difflib.get_close_matches(command, _SUMMARIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(_SUMMARIES)}"
        raise Misuse(f"there is no command {command}{hint}")
    return command, options, words


def _perform(command: str, options: list[str], words: list[str]) -> int:
    if command == "help":
        print(_overview())
        return OK
    if command in ("stack", "interop"):
        from air.daemon.stack import perform as perform_stack

        return perform_stack(command, options, words)
    try:
        args = _parser(command).parse_args(options)
        _take_words(command, args, words)
    except SystemExit:
        return OK  # --help and --version have printed what they had to
    except Misuse as error:
        raise Misuse(f"{error.message} (air {command} --help)") from None
    if command == "sim":
        from air.daemon.simulate import perform as simulate

        return simulate(args)
    settings = load(os.environ, config_file=args.config, flags=_flags(args))
    if command == "run":
        from air.daemon.run import run

        run(settings.config, json_line=args.json)
    elif command == "config":
        _config(settings, args)
    elif command == "verify":
        from air.daemon.verify import verify

        verify(args, settings)
    else:
        from air.daemon.commands import perform

        perform(command, args, settings)
    return OK


def _take_words(command: str, args: Namespace, words: list[str]) -> None:
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        raise Misuse("the arguments are not UTF-8") from None
    _, least, most = _WORDS.get(command, ("", 0, 0))
    if len(words) < least:
        raise Misuse(f"air {command} wants {_WORDS[command][0]}")
    if most is not None and len(words) > most:
        raise Misuse(f"air {command} knows nothing to do with {words[most]}")
    if words:
        args.soul, args.fields = words[0], words[1:]
        args.key = words[1] if len(words) > 1 else None


def _parser(command: str) -> ArgumentParser:
    words = _WORDS.get(command, ("", 0, 0))[0]
    parser = _Parser(
        usage=f"air {command} [options] {words}".rstrip(), description=_SUMMARIES[command], allow_abbrev=False
    )
    add = parser.add_argument
    add("--version", action="version", version=__version__)
    if command == "sim":
        from air.daemon.simulate import add_options

        add_options(parser)
        return parser
    add("--json", action="store_true", help="print JSON")
    add("--data", metavar="DIR", help="data folder of the daemon")
    add("--config", metavar="FILE", help="configuration file (TOML)")
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, as in store.engine=memory",
    )
    if command in ("run", "config"):
        add("--host", help="address of the GUN wire")
        add("--port", help="port of the GUN wire; 0 picks a free one")
        add(
            "--listen",
            metavar="MULTIADDR",
            action="append",
            help="address of the native wire; may be repeated",
        )
        add(
            "--peer", metavar="URL|MULTIADDR", action="append", help="peer to stay linked to; may be repeated"
        )
        add("--static", metavar="DIR", help="folder served to browsers")
        add("--admin", metavar="HOST:PORT", help="address of the admin interface")
        add("--backend", help="event loop: asyncio or trio")
        add("--log-level", metavar="LEVEL", help="debug, info, warning or error")
        if command == "config":
            add("--template", action="store_true", help="print a documented configuration file instead")
        return parser
    if command == "verify":
        return parser
    add("--api", metavar="URL", help="admin interface of the daemon, when it is not found through --data")
    add("--token-file", metavar="FILE", help="its token")
    if command in ("sync", "conflicts"):
        from air.daemon.heal_commands import add_options as add_heal_options

        add_heal_options(command, parser)
    if command == "get":
        add("--prefix", metavar="P", help="keys that start so")
        add("--from", dest="start", metavar="A", help="first key (what follows the prefix)")
        add("--to", dest="end", metavar="B", help="last key (what follows the prefix)")
        add("--limit", metavar="N", type=int, help="at most so many fields")
        add("--reverse", action="store_true", help="from the last key to the first")
        add("--states", action="store_true", help="also print when each field was written")
    return parser


def _flags(args: Namespace) -> list[Flag]:
    flags = []
    for name, key in (
        ("data", "node.data"),
        ("host", "gun.host"),
        ("port", "gun.port"),
        ("listen", "native.listen"),
        ("static", "gun.static"),
        ("backend", "node.backend"),
        ("log_level", "log.level"),
    ):
        given = getattr(args, name, None)
        if given is not None:
            flags.append(Flag(key, given, f"--{name.replace('_', '-')}"))
    peers = getattr(args, "peer", None) or []
    for key, some in (
        ("gun.peers", [peer for peer in peers if not peer.startswith("/")]),
        ("native.peers", [peer for peer in peers if peer.startswith("/")]),
    ):
        if some:
            flags.append(Flag(key, some, "--peer"))
    admin = getattr(args, "admin", None)
    if admin is not None:
        host, colon, port = admin.rpartition(":")
        if not colon or not host:
            raise Misuse(f"--admin wants HOST:PORT, not {admin}")
        flags += [Flag("admin.host", host.strip("[]"), "--admin"), Flag("admin.port", port, "--admin")]
    for one in args.set:
        key, equals, value = one.partition("=")
        if not equals:
            raise Misuse(f"--set wants section.key=value, not {one}")
        flags.append(Flag(key, value, "--set"))
    return flags


def _config(settings: Settings, args: Namespace) -> None:
    from air.daemon import confdoc
    from air.daemon.show import show

    if args.template:
        show(confdoc.template().rstrip())
    elif args.json:
        import json

        show(json.dumps(confdoc.as_json(settings)))
    else:
        show(confdoc.effective(settings).rstrip())


def _overview() -> str:
    lines = ["usage: air [command] [options]", ""]
    lines += [f"  {name:9}{summary}" for name, summary in _SUMMARIES.items()]
    lines += ["", "air COMMAND --help tells more. Exit codes: 0 ok, 1 failure, 2 usage, 3 not found,"]
    return "\n".join([*lines, "4 no daemon, 5 denied."])
