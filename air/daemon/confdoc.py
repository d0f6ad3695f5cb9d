"""Settings as documented TOML. (core)

The documentation of a key is the text below its field in ``air/node/config.py``; it is read from the
source, so that it is written once.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from air.daemon.settings import BUILT_IN, Settings
from air.node import config
from air.node.config import SECTIONS, Rule, keys, size_text

__all__ = ["as_json", "documentation", "effective", "markdown", "template", "toml_value", "write_page"]

_WIDTH = 100
_DATA = '"$XDG_DATA_HOME/air"'


def documentation() -> Mapping[str, str]:
    """``section`` and ``section.name`` -> what it means, on one line."""
    sections = {kind.__name__: section for section, kind in SECTIONS.items()}
    found: dict[str, str] = {}
    for node in ast.parse(inspect.getsource(config)).body:
        if not isinstance(node, ast.ClassDef) or node.name not in sections:
            continue
        section = sections[node.name]
        found[section] = " ".join((ast.get_docstring(node) or "").split())
        name = ""
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = line.target.id
            elif isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and name:
                found[f"{section}.{name}"] = " ".join(str(line.value.value).split())
                name = ""
    return found


def toml_value(rule: Rule, value: object) -> str:
    """A value as it would be written in a file."""
    match value:
        case None:
            return '""'
        case bool():
            return "true" if value else "false"
        case int() if rule.kind == "size":
            return json.dumps(size_text(value))
        case int() | float():
            return repr(value)
        case tuple():
            return "[" + ", ".join(_text(str(one)) for one in value) + "]"
    return _text(str(value))


def _text(value: str) -> str:
    # A path may hold bytes that are not UTF-8; TOML cannot carry them, so they are shown as "?".
    clean = value.encode("utf-8", "replace").decode()
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")


def template() -> str:
    """A configuration file that names every key with its meaning and default, and changes nothing."""
    lines = list(_comment("Every setting of Air with its default. Remove the # before those you change."))
    documented = documentation()
    section = ""
    for key, field, rule in keys():
        place, _, name = key.partition(".")
        if place != section:
            section = place
            lines += ["", *_comment(documented[section]), f"[{section}]"]
        # The default of the data folder depends on the machine; everything else is the same everywhere.
        value = _DATA if key == "node.data" else toml_value(rule, field.default)
        lines += [
            "",
            *_comment(documented[key]),
            *_comment(f"Holds {rule.expectation}."),
            f"# {name} = {value}",
        ]
    return "\n".join(lines) + "\n"


def effective(settings: Settings) -> str:
    """The settings in force as TOML, each with its source."""
    lines: list[str] = []
    section = ""
    for key, _, rule in keys():
        place, _, name = key.partition(".")
        if place != section:
            section = place
            lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        source = settings.sources[key]
        note = "" if source == BUILT_IN else f"  # {source}"
        lines.append(f"{name} = {toml_value(rule, settings.value(key))}{note}")
    return "\n".join(lines) + "\n"


def as_json(settings: Settings) -> Mapping[str, Mapping[str, object]]:
    """``section.name`` -> its value and source, as JSON can hold them."""
    shown: dict[str, Mapping[str, object]] = {}
    for key, _, _ in keys():
        value = settings.value(key)
        value = str(value) if isinstance(value, Path) else value
        shown[key] = {"value": value, "source": settings.sources[key]}
    return shown


def markdown() -> str:
    """The text of ``docs/configuration.md``."""
    return _PAGE.replace("TEMPLATE", template().rstrip())


def write_page(path: str | Path) -> None:
    """Bring ``docs/configuration.md`` up to date after a change of ``air/node/config.py``."""
    Path(path).write_text(markdown(), encoding="utf-8")


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


_PAGE = """\
# Configuration

Air runs without any configuration. What can be set comes from five places; a later one wins:

1. the built-in values below,
2. `$XDG_CONFIG_HOME/air/air.toml` (`~/.config/air/air.toml` when the variable is not set),
3. the file named by `--config`,
4. the environment: `AIR_`, the section, two underscores, the key, as in `AIR_STORE__ENGINE=memory`;
   a list is separated by commas,
5. flags: `--data`, `--host`, `--port`, `--peer`, `--static`, `--admin`, `--backend`, `--log-level`, and
   `--set section.key=value` for everything else.

`air config` shows the settings in force and where each came from; `air config --template` prints the
file below, ready to be edited.

An unknown key, section or `AIR_…__…` variable is an error, with a suggestion. A list from a later place
replaces the earlier one. A size is a number of bytes, or text such as `"64 MiB"` or `"1.5 GB"`. A path that
is not absolute is taken from the folder of the file it stands in, or from the current folder when it comes
from the environment or a flag; `~` is the home folder; `""` means none.

Secrets (the identity, the admin token, the key of the store, the TLS key) are never settings themselves:
a setting names a file, which must have mode 0600. A secret file that others can read is refused.

```toml
TEMPLATE
```
"""
