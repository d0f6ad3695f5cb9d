"""What a request to the admin interface asks for, read with care. (core)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from air.base.errors import Violation

__all__ = ["flag_of", "limit_of", "read_query", "soul_of"]

_QUERY_FIELDS_MAX: Final = 16
_LIMIT_MAX: Final = 2**53


def read_query(request: Request, *names: str) -> dict[str, str]:
    """The query as text. Souls and keys may hold lone surrogates, as JavaScript text may."""
    raw = request.scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(
            raw,
            keep_blank_values=True,
            errors="surrogatepass",
            max_num_fields=_QUERY_FIELDS_MAX,
        )
    except ValueError:
        raise Violation("the query is not percent-encoded UTF-8", code="admin.bad-query") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in names or name in query:
            problem = "is given twice" if name in query else "is not known here"
            shown = name[:40].encode("utf-8", "replace").decode()
            raise Violation(f"the query parameter {shown} {problem}", code="admin.bad-query")
        query[name] = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return query


def soul_of(query: Mapping[str, str]) -> str:
    soul = query.get("soul", "")
    if not soul:
        raise Violation("name the node: ?soul=…", code="admin.bad-query")
    return soul


def limit_of(query: Mapping[str, str]) -> int | None:
    raw = query.get("limit")
    if raw is None:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 16 and 1 <= int(raw) <= _LIMIT_MAX):
        raise Violation("limit is a whole number from 1", code="admin.bad-query")
    return int(raw)


def flag_of(query: Mapping[str, str], name: str) -> bool:
    """True for ``?name`` and ``?name=true``."""
    raw = query.get(name, "false")
    if raw not in ("", "true", "false"):
        raise Violation(f"{name} is true or false", code="admin.bad-query")
    return raw != "false"
