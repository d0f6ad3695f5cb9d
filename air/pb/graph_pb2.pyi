from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("hello", "put", "ack", "get", "answer", "subscribe", "unsubscribe", "credit", "bye", "zipped")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    GET_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    ZIPPED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    put: Put
    ack: Ack
    get: Get
    answer: Answer
    subscribe: Subscribe
    unsubscribe: Unsubscribe
    credit: Credit
    bye: Bye
    zipped: Zipped
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping[str, object]]] = ..., put: _Optional[_Union[Put, _Mapping[str, object]]] = ..., ack: _Optional[_Union[Ack, _Mapping[str, object]]] = ..., get: _Optional[_Union[Get, _Mapping[str, object]]] = ..., answer: _Optional[_Union[Answer, _Mapping[str, object]]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping[str, object]]] = ..., unsubscribe: _Optional[_Union[Unsubscribe, _Mapping[str, object]]] = ..., credit: _Optional[_Union[Credit, _Mapping[str, object]]] = ..., bye: _Optional[_Union[Bye, _Mapping[str, object]]] = ..., zipped: _Optional[_Union[Zipped, _Mapping[str, object]]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "peer", "everything", "cells_max", "bytes_max", "credit_cells", "credit_bytes", "silent_ms", "agent", "relays")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    CELLS_MAX_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    CREDIT_CELLS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    version: int
    peer: bytes
    everything: bool
    cells_max: int
    bytes_max: int
    credit_cells: int
    credit_bytes: int
    silent_ms: int
    agent: bytes
    relays: bool
    def __init__(self, version: _Optional[int] = ..., peer: _Optional[bytes] = ..., everything: bool = ..., cells_max: _Optional[int] = ..., bytes_max: _Optional[int] = ..., credit_cells: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., silent_ms: _Optional[int] = ..., agent: _Optional[bytes] = ..., relays: bool = ...) -> None: ...

class Cells(_message.Message):
    __slots__ = ("souls", "soul_runs", "keys", "key_of", "states", "state_runs", "kinds", "wholes", "doubles", "texts", "links", "writers", "dot_writers", "dot_sequences", "mark_dots", "marks", "mark_runs")
    SOULS_FIELD_NUMBER: _ClassVar[int]
    SOUL_RUNS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    KEY_OF_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    STATE_RUNS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    WHOLES_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    WRITERS_FIELD_NUMBER: _ClassVar[int]
    DOT_WRITERS_FIELD_NUMBER: _ClassVar[int]
    DOT_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    MARK_DOTS_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    MARK_RUNS_FIELD_NUMBER: _ClassVar[int]
    souls: _containers.RepeatedScalarFieldContainer[bytes]
    soul_runs: _containers.RepeatedScalarFieldContainer[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    key_of: _containers.RepeatedScalarFieldContainer[int]
    states: _containers.RepeatedScalarFieldContainer[int]
    state_runs: _containers.RepeatedScalarFieldContainer[int]
    kinds: bytes
    wholes: _containers.RepeatedScalarFieldContainer[int]
    doubles: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[bytes]
    links: _containers.RepeatedScalarFieldContainer[bytes]
    writers: _containers.RepeatedScalarFieldContainer[bytes]
    dot_writers: _containers.RepeatedScalarFieldContainer[int]
    dot_sequences: _containers.RepeatedScalarFieldContainer[int]
    mark_dots: _containers.RepeatedScalarFieldContainer[int]
    marks: _containers.RepeatedScalarFieldContainer[int]
    mark_runs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, souls: _Optional[_Iterable[bytes]] = ..., soul_runs: _Optional[_Iterable[int]] = ..., keys: _Optional[_Iterable[bytes]] = ..., key_of: _Optional[_Iterable[int]] = ..., states: _Optional[_Iterable[int]] = ..., state_runs: _Optional[_Iterable[int]] = ..., kinds: _Optional[bytes] = ..., wholes: _Optional[_Iterable[int]] = ..., doubles: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[bytes]] = ..., links: _Optional[_Iterable[bytes]] = ..., writers: _Optional[_Iterable[bytes]] = ..., dot_writers: _Optional[_Iterable[int]] = ..., dot_sequences: _Optional[_Iterable[int]] = ..., mark_dots: _Optional[_Iterable[int]] = ..., marks: _Optional[_Iterable[int]] = ..., mark_runs: _Optional[_Iterable[int]] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("batch", "cells", "floor")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    batch: int
    cells: Cells
    floor: int
    def __init__(self, batch: _Optional[int] = ..., cells: _Optional[_Union[Cells, _Mapping[str, object]]] = ..., floor: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("batches", "error")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedScalarFieldContainer[int]
    error: bytes
    def __init__(self, batches: _Optional[_Iterable[int]] = ..., error: _Optional[bytes] = ...) -> None: ...

class Id(_message.Message):
    __slots__ = ("text", "whole", "number")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    whole: int
    number: float
    def __init__(self, text: _Optional[bytes] = ..., whole: _Optional[int] = ..., number: _Optional[float] = ...) -> None: ...

class Lex(_message.Message):
    __slots__ = ("exact", "prefix", "start", "end", "reverse", "budget")
    EXACT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    exact: bytes
    prefix: bytes
    start: bytes
    end: bytes
    reverse: bool
    budget: int
    def __init__(self, exact: _Optional[bytes] = ..., prefix: _Optional[bytes] = ..., start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., reverse: bool = ..., budget: _Optional[int] = ...) -> None: ...

class Get(_message.Message):
    __slots__ = ("id", "soul", "prefix", "lex")
    ID_FIELD_NUMBER: _ClassVar[int]
    SOUL_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    LEX_FIELD_NUMBER: _ClassVar[int]
    id: Id
    soul: bytes
    prefix: bytes
    lex: Lex
    def __init__(self, id: _Optional[_Union[Id, _Mapping[str, object]]] = ..., soul: _Optional[bytes] = ..., prefix: _Optional[bytes] = ..., lex: _Optional[_Union[Lex, _Mapping[str, object]]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("re", "cells", "more", "error")
    RE_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    re: Id
    cells: Cells
    more: bool
    error: bytes
    def __init__(self, re: _Optional[_Union[Id, _Mapping[str, object]]] = ..., cells: _Optional[_Union[Cells, _Mapping[str, object]]] = ..., more: bool = ..., error: _Optional[bytes] = ...) -> None: ...

class Wish(_message.Message):
    __slots__ = ("soul", "prefix", "key")
    SOUL_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    soul: bytes
    prefix: bytes
    key: bytes
    def __init__(self, soul: _Optional[bytes] = ..., prefix: _Optional[bytes] = ..., key: _Optional[bytes] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("wishes",)
    WISHES_FIELD_NUMBER: _ClassVar[int]
    wishes: _containers.RepeatedCompositeFieldContainer[Wish]
    def __init__(self, wishes: _Optional[_Iterable[_Union[Wish, _Mapping[str, object]]]] = ...) -> None: ...

class Unsubscribe(_message.Message):
    __slots__ = ("wishes",)
    WISHES_FIELD_NUMBER: _ClassVar[int]
    wishes: _containers.RepeatedCompositeFieldContainer[Wish]
    def __init__(self, wishes: _Optional[_Iterable[_Union[Wish, _Mapping[str, object]]]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("cells", "bytes")
    CELLS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    cells: int
    bytes: int
    def __init__(self, cells: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: bytes
    text: bytes
    def __init__(self, code: _Optional[bytes] = ..., text: _Optional[bytes] = ...) -> None: ...

class Zipped(_message.Message):
    __slots__ = ("size", "data")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    size: int
    data: bytes
    def __init__(self, size: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
