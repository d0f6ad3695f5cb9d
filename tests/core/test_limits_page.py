"""docs/limits.md against the code: every ceiling has its row, with the default in force and a code in use."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import air
import air.node.config
from air.transport.static import StaticConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "limits.md").read_text()
SECTIONS = re.findall(r"^`([a-z_.]+)\.([A-Z]\w+)`\n\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
SOURCE = "\n".join(path.read_text() for path in (ROOT / "air").rglob("*.py"))


def spelled(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if value < 1000 else f"{value:,.0f}"


@pytest.mark.parametrize(("module", "name", "table"), SECTIONS, ids=lambda one: str(one)[:30])
def test_the_page_tells_the_defaults_in_force(module: str, name: str, table: str) -> None:
    config = getattr(importlib.import_module(module), name)()
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]]
    for field, default, _, _ in rows:
        assert spelled(getattr(config, field.strip("`"))) == default, field
    named = {row[0].strip("`") for row in rows}
    ceilings = {one.name for one in fields(config) if one.name.endswith("_max")}
    assert ceilings <= named


def test_every_settings_class_with_a_ceiling_is_on_the_page() -> None:
    told = {getattr(importlib.import_module(module), name) for module, name, _ in SECTIONS}
    found = set()
    for module in pkgutil.walk_packages(air.__path__, "air."):
        if "__main__" not in module.name:
            found |= {
                value
                for name, value in vars(importlib.import_module(module.name)).items()
                if name.endswith(("Config", "Limits")) and is_dataclass(value) and isinstance(value, type)
                if any(one.name.endswith("_max") for one in fields(value))
            }
    # Elsewhere or not at all: what the program's settings turn into one of the others; a length of pieces.
    settings = {air.node.config.GunConfig, StaticConfig}
    bases = {base for one in found for base in one.__mro__[1:]}
    assert found - settings - bases - told == set()


def test_every_code_on_the_page_is_one_that_the_code_uses() -> None:
    codes = set(re.findall(r"\| `([a-z]+\.[a-z-]+)` \|", PAGE))
    assert len(codes) > 20
    assert {code for code in codes if f'"{code}"' not in SOURCE} == set()
    assert set(re.findall(r'"(limit\.[a-z-]+)"', SOURCE)) - codes - {"limit.reached"} == set()
