"""Plants bugs, one at a time, in a copy of the package, and tells which level of the suite catches each.

    python tests/planted/run.py [--only NAME]… [--levels core,units,sim,layers]

Each ``NAME.patch`` begins with a line that says what is wrong. The exit code is 0 when nothing escaped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).absolute().parent
ROOT = HERE.parents[1]

LEVELS: dict[str, list[str]] = {
    "core": [
        "tests/core/test_engine.py",
        "tests/core/test_laws.py",
        "tests/core/test_gun_guard.py",
        "tests/core/test_gun_refusals.py",
        "tests/core/test_lexget_vectors.py",
        "tests/core/test_store_window.py",
        "tests/core/test_store_marks.py",
        "tests/core/test_store_spans.py",
        "tests/core/test_engine_peers.py",
        "tests/core/test_native_columns.py",
        "tests/core/test_native_link.py",
        "tests/core/test_native_zstd.py",
        "tests/core/test_repair.py",
        "tests/core/test_dht_codec.py",
        "tests/core/test_dht_lookup.py",
        "tests/core/test_dht_records.py",
        "tests/core/test_dht_responder.py",
        "tests/core/test_dht_table.py",
        "tests/core/test_noise_core.py",
        "tests/core/test_yamux.py",
        "tests/core/test_yamux_properties.py",
        "tests/core/test_vectors_lexget_wire.py",
        "tests/core/test_vectors_model.py",
        "tests/core/test_vectors_native.py",
        "tests/core/test_vectors_libp2p_mux.py",
        "tests/core/test_vectors_libp2p_security.py",
        "tests/core/test_vectors_wire.py",
    ],
    "units": ["tests/sim/test_findings.py", "tests/sim/test_escaped.py", "tests/sim/test_causes.py"],
    "sim": [
        "tests/sim/test_oracle.py",
        "tests/sim/test_native.py",
        "tests/sim/test_seeds.py",
        "tests/sim/test_regressions.py",
    ],
    "layers": [
        "tests/layers/test_dht.py",
        "tests/layers/test_store_worker.py",
        "tests/layers/test_relay.py",
        "tests/layers/test_native.py",
        "tests/layers/test_repair.py",
    ],
}
SECONDS_MAX = 600


def main() -> int:
    parser = argparse.ArgumentParser(description="plant bugs and see which level catches them")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--skip-sound", action="store_true", help="do not run the suite without a bug first")
    args = parser.parse_args()
    levels = args.levels.split(",")
    patches = sorted(HERE.glob("*.patch"))
    if args.only:
        patches = [patch for patch in patches if patch.stem in args.only]
    escaped: list[str] = []
    with tempfile.TemporaryDirectory(prefix="planted-") as scratch:
        copy(Path(scratch))
        if not args.skip_sound:
            for level in levels:
                broken, seconds, why = check(Path(scratch), level)
                if broken:
                    print(f"the suite fails without a bug, level {level}: {why}")
                    return 2
                print(f"{'(no bug)':28} {level:8} passes {seconds:6.1f} s", flush=True)
        for patch in patches:
            if not plant(Path(scratch), patch):
                print(f"{patch.stem:28} DOES NOT APPLY", flush=True)
                escaped.append(patch.stem)
                continue
            total = 0.0
            for level in levels:
                broken, seconds, why = check(Path(scratch), level)
                total += seconds
                if broken:
                    print(f"{patch.stem:28} {level:8} {total:6.1f} s  {why}", flush=True)
                    break
            else:
                what = patch.read_text().splitlines()[0]
                print(f"{patch.stem:28} ESCAPED  {total:6.1f} s  {what}", flush=True)
                escaped.append(patch.stem)
            plant(Path(scratch), patch, back=True)
    caught = len(patches) - len(escaped)
    print(f"{caught} of {len(patches)} caught{'; escaped: ' if escaped else ''}{', '.join(escaped)}")
    return 1 if escaped else 0


def copy(scratch: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "planted", "interop")
    for name in ("air", "tests", "examples", "docs"):
        shutil.copytree(ROOT / name, scratch / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, scratch / name)


def plant(scratch: Path, patch: Path, *, back: bool = False) -> bool:
    """Apply a patch, or take it back."""
    way = ["-R"] if back else []
    done = subprocess.run(
        ["patch", "-p1", "-s", "-F3", "--no-backup-if-mismatch", *way, "-i", str(patch)],
        cwd=scratch,
        capture_output=True,
    )
    return done.returncode == 0


def check(scratch: Path, level: str) -> tuple[bool, float, str]:
    """(whether the level fails, seconds, the test that failed)."""
    paths = [path for path in LEVELS[level] if (scratch / path).exists()]
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths],
            cwd=scratch,
            # A part of the seeds finds what all of them find, in a minute instead of two.
            env={"AIR_SIM_SEEDS": "0.4"}
            | os.environ
            | {"PYTHONPATH": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        return True, time.monotonic() - started, "does not end"
    seconds = time.monotonic() - started
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR tests"))]
    if any(line.startswith("ERROR tests") and "::" not in line for line in failed):
        raise SystemExit(f"the suite cannot be loaded, which catches nothing:\n{done.stdout[-2000:]}")
    why = failed[0].split("::", 1)[-1][:90] if failed else (done.stdout + done.stderr)[-200:]
    return done.returncode != 0, seconds, why


if __name__ == "__main__":
    raise SystemExit(main())
