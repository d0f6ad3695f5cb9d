"""A disk in memory that does with unflushed writes whatever a real one may do.

:class:`Disk` is a SQLite file system that keeps a journal of every write, truncation, flush, creation
and removal. :class:`Platters` works it off, and gives the disk as a power cut at any point may have left
it: each sector written since the last flush of its file holds any of its versions (lost, reordered,
torn), and the length of the file is any that it had. What was flushed is there.

A flush can be told to fail once. Then, as on Linux, what it should have flushed is shown as before and
is taken for clean: no later flush writes it, only writing it again does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

__all__ = ["Disk", "Event"]


class Event(NamedTuple):
    """One thing that happened to one file, in order."""

    kind: str
    """``write``, ``truncate``, ``flush``, ``fail``, ``remove`` or ``note``."""
    name: str
    offset: int = 0
    data: Any = b""


@dataclass
class Content:
    """A file as programs see it."""

    data: bytearray = field(default_factory=bytearray)

    def write(self, offset: int, data: bytes) -> None:
        if len(self.data) < offset:
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))


@dataclass
class Stable:
    """A file as the platters have it, with what is on the way to them."""

    data: bytearray = field(default_factory=bytearray)
    named: bool = False
    """Its name in the folder is durable."""
    versions: dict[int, list[bytes]] = field(default_factory=dict)
    """Sector -> what was written to it since it was flushed, oldest first."""
    sizes: list[int] = field(default_factory=list)
    """Lengths the file had since it was flushed."""
    seen: Content = field(default_factory=Content)

    def write(self, sector: int, offset: int, data: bytes) -> None:
        self.seen.write(offset, data)
        for number in range(offset // sector, (offset + len(data) - 1) // sector + 1):
            whole = bytes(self.seen.data[number * sector : (number + 1) * sector])
            self.versions.setdefault(number, []).append(whole)
        self.sizes.append(len(self.seen.data))

    def truncate(self, size: int) -> None:
        self.seen.truncate(size)
        self.sizes.append(size)

    def flush(self, sector: int) -> None:
        for number, versions in self.versions.items():
            _put(self.data, number * sector, versions[-1])
        if self.sizes:
            _resize(self.data, self.sizes[-1])
        self.versions.clear()
        self.sizes.clear()

    def fail(self, sector: int, chance: random.Random) -> None:
        """Some of it may have been written; the rest is forgotten, and nobody will write it later."""
        for number, versions in self.versions.items():
            if chance.random() < 0.5:
                _put(self.data, number * sector, versions[-1])
        self.versions.clear()
        self.sizes.clear()

    def after_crash(self, sector: int, chance: random.Random, keep: float) -> bytearray:
        """``keep``: how likely each sector is to have been written."""
        data = bytearray(self.data)
        for number, versions in self.versions.items():
            if chance.random() < keep:
                _put(data, number * sector, chance.choice(versions))
        sizes = [len(self.data), *self.sizes]
        if keep < 1:
            _resize(data, chance.choice(sizes) if keep > 0 else sizes[0])
        else:
            _resize(data, sizes[-1])
        return data


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


class Platters:
    """The journal worked off up to some point."""

    def __init__(self, disk: Disk) -> None:
        self._sector = disk.sector
        self._files: dict[str, Stable] = {name: Stable(bytearray(data), True) for name, data in disk.initial}
        for stable in self._files.values():
            stable.seen.data[:] = stable.data
        self._removed: dict[str, Stable] = {}
        self._chance = random.Random(disk.seed)

    def apply(self, event: Event) -> None:
        kind, name = event.kind, event.name
        if kind == "remove":
            file = self._files.pop(name, None)
            if file is not None and file.named:
                self._removed[name] = file
            return
        if kind == "note":
            return
        file = self._files.setdefault(name, Stable())
        if kind == "write":
            file.write(self._sector, event.offset, event.data)
        elif kind == "truncate":
            file.truncate(event.offset)
        elif kind == "flush":
            file.flush(self._sector)
        elif kind == "fail":
            file.fail(self._sector, self._chance)
        if kind == "flush" and not file.named:
            # SQLite flushes the folder with the first flush of a file that it made, and Air after opening.
            for other in self._files.values():
                other.named = True
            self._removed.clear()

    def after_crash(self, chance: random.Random, keep: float) -> list[tuple[str, bytes]]:
        files: dict[str, bytearray] = {}
        for name, file in self._removed.items():
            if chance.random() >= keep:
                files[name] = file.after_crash(self._sector, chance, keep)
        for name, file in self._files.items():
            if file.named or chance.random() < keep:
                files[name] = file.after_crash(self._sector, chance, keep)
        return [(name, bytes(data)) for name, data in files.items()]


class Disk(apsw.VFS):
    """A file system in memory by the name ``name``; SQLite finds it by that name until :meth:`unregister`."""

    def __init__(
        self,
        name: str,
        initial: Sequence[tuple[str, bytes]] = (),
        *,
        sector: int = 512,
        seed: int = 0,
    ) -> None:
        self.name, self.sector, self.seed = name, sector, seed
        self.initial = list(initial)
        self.files: dict[str, Content] = {}
        for file, data in initial:
            self.files[file] = Content(bytearray(data))
        self.journal: list[Event] = []
        self.fail_flush: int | None = None
        """Flushes until one fails, once; counted down."""
        self.only: str = ""
        """Count only flushes of files whose name ends so."""
        self.broken = False
        """Every flush fails."""
        super().__init__(name, "")

    def note(self, what: object) -> None:
        """Write something of one's own into the journal, such as an acknowledgement."""
        self.journal.append(Event("note", "", 0, what))

    def points(self) -> list[int]:
        """Places in the journal at which a power cut makes a difference."""
        return [place for place, event in enumerate(self.journal) if event.kind != "note"]

    def platters(self) -> Platters:
        return Platters(self)

    # -- as SQLite sees it -----------------------------------------------------

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        if path not in self.files:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            self.files[path] = Content()
            self.journal.append(Event("truncate", path, 0))
        flags[1] = flags[0]
        return DiskFile(self, path)

    def xDelete(self, name: str, sync: bool) -> None:
        if self.files.pop(name, None) is None:
            error = apsw.IOError(name)
            error.extendedresult = apsw.SQLITE_IOERR_DELETE_NOENT  # type: ignore[attr-defined]
            raise error
        self.journal.append(Event("remove", name))

    def xAccess(self, name: str, flags: int) -> bool:
        return name in self.files

    def xFullPathname(self, name: str) -> str:
        return name


class DiskFile:
    """An open file."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk, self._name, self._content = disk, name, disk.files[name]
        self._lock = 0

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._content.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._content.write(offset, data)
        self._disk.journal.append(Event("write", self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._content.truncate(size)
        self._disk.journal.append(Event("truncate", self._name, size))

    def xSync(self, flags: int) -> None:
        disk = self._disk
        if disk.fail_flush is not None and self._name.endswith(disk.only):
            disk.fail_flush -= 1
            if disk.fail_flush < 0:
                disk.fail_flush = None
                self._fail()
        if disk.broken:
            self._fail()
        disk.journal.append(Event("flush", self._name))

    def _fail(self) -> None:
        self._disk.journal.append(Event("fail", self._name))
        error = apsw.IOError("the disk did not flush")
        error.extendedresult = apsw.SQLITE_IOERR_FSYNC  # type: ignore[attr-defined]
        raise error

    def xFileSize(self) -> int:
        return len(self._content.data)

    def xLock(self, level: int) -> None:
        self._lock = level

    def xUnlock(self, level: int) -> None:
        self._lock = level

    def xCheckReservedLock(self) -> bool:
        return self._lock >= apsw.SQLITE_LOCK_RESERVED

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return self._disk.sector

    def xDeviceCharacteristics(self) -> int:
        # As the system's files: a torn write leaves its neighbours in the sector as they were.
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)

    def xClose(self) -> None:
        pass

    def excepthook(self, *_: Any) -> bool:
        return True
