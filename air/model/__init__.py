"""The words of the data tower: values, cells, LEX, messages. No I/O, no policy."""

from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import ALL, Lex, matches, parse_lex
from air.model.mark import Dot, Mark
from air.model.message import Ack, Answer, Ephemeral, Get, Message, Put, SoulRange
from air.model.value import Link, Value, canonical, number_text, unit_bytes, value_bytes, value_text

__all__ = [
    "ALL",
    "Ack",
    "Answer",
    "Cell",
    "Dot",
    "Ephemeral",
    "Fields",
    "Get",
    "Key",
    "Lex",
    "Link",
    "Mark",
    "Message",
    "Put",
    "Soul",
    "SoulRange",
    "State",
    "Value",
    "canonical",
    "matches",
    "number_text",
    "parse_lex",
    "unit_bytes",
    "value_bytes",
    "value_text",
]
