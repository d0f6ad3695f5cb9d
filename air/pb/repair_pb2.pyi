from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("number", "last", "opening", "bounds", "kinds", "counts", "prints", "id_bytes", "ids", "names", "states", "cells", "merged", "refusal", "zipped_bytes", "zipped")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    PRINTS_FIELD_NUMBER: _ClassVar[int]
    ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    ZIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ZIPPED_FIELD_NUMBER: _ClassVar[int]
    number: int
    last: bool
    opening: Opening
    bounds: bytes
    kinds: bytes
    counts: _containers.RepeatedScalarFieldContainer[int]
    prints: bytes
    id_bytes: int
    ids: bytes
    names: bytes
    states: _containers.RepeatedScalarFieldContainer[int]
    cells: bytes
    merged: int
    refusal: bytes
    zipped_bytes: int
    zipped: bytes
    def __init__(self, number: _Optional[int] = ..., last: bool = ..., opening: _Optional[_Union[Opening, _Mapping[str, object]]] = ..., bounds: _Optional[bytes] = ..., kinds: _Optional[bytes] = ..., counts: _Optional[_Iterable[int]] = ..., prints: _Optional[bytes] = ..., id_bytes: _Optional[int] = ..., ids: _Optional[bytes] = ..., names: _Optional[bytes] = ..., states: _Optional[_Iterable[int]] = ..., cells: _Optional[bytes] = ..., merged: _Optional[int] = ..., refusal: _Optional[bytes] = ..., zipped_bytes: _Optional[int] = ..., zipped: _Optional[bytes] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("salt", "low", "high", "dry_run")
    SALT_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    salt: bytes
    low: bytes
    high: bytes
    dry_run: bool
    def __init__(self, salt: _Optional[bytes] = ..., low: _Optional[bytes] = ..., high: _Optional[bytes] = ..., dry_run: bool = ...) -> None: ...
