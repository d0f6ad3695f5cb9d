"""The fuzz targets, briefly: every seed, everything that was ever found, and some bytes of Hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS

pytestmark = pytest.mark.hostile

CORPUS = Path(__file__).resolve().parents[2] / "fuzz" / "corpus"
SEEDS = [(path.parent.name, path) for path in sorted(CORPUS.glob("*/*"))]


@pytest.mark.parametrize(
    ("name", "path"), [pytest.param(*one, id="/".join(one[1].parts[-2:])) for one in SEEDS]
)
def test_a_seed_finds_nothing(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_bytes_find_nothing(target: Callable[[bytes], None]) -> None:
    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=300))
    def run(data: bytes) -> None:
        target(data)

    run()
