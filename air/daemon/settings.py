"""Where settings come from, and which source wins. (root)

Built-in values, then the user's ``air.toml``, then ``--config``, then the environment, then flags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from air.base.errors import ConfigError
from air.node.config import SECTIONS, Config, Rule, keys

__all__ = ["BUILT_IN", "Flag", "Settings", "load", "user_file"]

BUILT_IN: Final = "built-in"
_FILE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting from the command line."""

    key: str
    raw: str | Sequence[str]
    """Text, or a list for a key that holds one."""
    source: str
    """The flag as the user wrote it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force, and where each came from."""

    config: Config
    sources: Mapping[str, str]
    """``section.name`` -> ``built-in``, the path of a file, the name of a variable, or a flag."""

    def value(self, key: str) -> Any:
        section, _, name = key.partition(".")
        return getattr(getattr(self.config, section), name)


def user_file(environ: Mapping[str, str]) -> Path:
    """``$XDG_CONFIG_HOME/air/air.toml``."""
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "air" / "air.toml"


def load(
    environ: Mapping[str, str], *, config_file: str | None = None, flags: Sequence[Flag] = ()
) -> Settings:
    """Read all sources.

    ``config_file`` must exist when it is given; the user's own file need not. Relative paths in a file
    are taken from its folder, others from the current one. Raises ConfigError: ``config.no-file``,
    ``config.bad-toml``, ``config.unknown-key``, ``config.bad-value``, ``config.contradiction``.
    """
    reader = _Reader()
    user = user_file(environ)
    if user.is_file():
        reader.file(user)
    if config_file is not None:
        reader.file(Path(config_file))
    reader.environment(environ)
    for flag in flags:
        rule = reader.rule(flag.key, flag.source)
        if isinstance(flag.raw, str):
            reader.text(flag.key, rule, flag.raw, flag.source)
        else:
            reader.typed(flag.key, rule, list(flag.raw), flag.source, None)
    return reader.settings()


class _Reader:
    def __init__(self) -> None:
        self._rules = {key: rule for key, _, rule in keys()}
        self._values: dict[str, object] = {}
        self._sources = dict.fromkeys(self._rules, BUILT_IN)

    def rule(self, key: str, source: str) -> Rule:
        found = self._rules.get(key)
        if found is None:
            raise ConfigError(
                f"unknown setting {key} ({source}){_suggest(key, self._rules)}", code="config.unknown-key"
            )
        return found

    def file(self, path: Path) -> None:
        import tomllib

        try:
            with open(path, "rb") as file:
                data = file.read(_FILE_BYTES_MAX + 1)
            if len(data) > _FILE_BYTES_MAX:
                raise ConfigError(f"{path} is too long for a configuration", code="config.bad-toml")
            tree = tomllib.loads(data.decode())
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", code="config.no-file") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not TOML: {_one_line(error)}", code="config.bad-toml") from None
        folder = Path(os.path.abspath(path)).parent
        for section, table in tree.items():
            if section not in SECTIONS:
                raise ConfigError(
                    f"unknown section [{section}] ({path}){_suggest(section, SECTIONS)}",
                    code="config.unknown-key",
                )
            if not isinstance(table, dict):
                raise self._bad(section, table, str(path), f"a section: write [{section}]")
            for name, raw in table.items():
                key = f"{section}.{name}"
                self.typed(key, self.rule(key, str(path)), raw, str(path), folder)

    def environment(self, environ: Mapping[str, str]) -> None:
        names = {"AIR_" + key.replace(".", "__").upper(): key for key in self._rules}
        # AIR_STORE_ENGINE would otherwise be ignored without a word.
        squeezed = {name.replace("__", "_"): name for name in names}
        for name in sorted(environ):
            if name in names:
                self.text(names[name], self._rules[names[name]], environ[name], name)
            elif name in squeezed:
                raise ConfigError(
                    f"unknown variable {name}; did you mean {squeezed[name]}?", code="config.unknown-key"
                )
            elif name.startswith("AIR_") and "__" in name:
                raise ConfigError(
                    f"unknown variable {name}{_suggest(name, names)}", code="config.unknown-key"
                )

    def typed(self, key: str, rule: Rule, raw: object, source: str, folder: Path | None) -> None:
        try:
            self._values[key] = rule.read(raw, folder)
        except ValueError:
            raise self._bad(key, raw, source, rule.expectation, rule.choices) from None
        self._sources[key] = source

    def text(self, key: str, rule: Rule, raw: str, source: str) -> None:
        try:
            self._values[key] = rule.read_text(raw)
        except ValueError:
            raise self._bad(key, raw, source, rule.expectation, rule.choices) from None
        self._sources[key] = source

    def settings(self) -> Settings:
        sections: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        for key, value in self._values.items():
            section, _, name = key.partition(".")
            sections[section][name] = value
        built = {section: SECTIONS[section](**values) for section, values in sections.items()}
        return Settings(Config(**built), self._sources)

    @staticmethod
    def _bad(
        key: str, raw: object, source: str, expectation: str, choices: Sequence[str] = ()
    ) -> ConfigError:
        shown = repr(raw)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        hint = _suggest(raw, choices) if isinstance(raw, str) else ""
        return ConfigError(
            f"{key} = {shown} ({source}): expected {expectation}{hint}", code="config.bad-value"
        )


def _suggest(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    import difflib

    # The right name in the wrong section is a common slip, and looks like nothing else.
    name = word.rpartition(".")[2]
    near = [key for key in known if "." in key and key.rpartition(".")[2] == name][:1]
    near = near or difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
