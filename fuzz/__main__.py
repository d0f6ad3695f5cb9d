"""``python -m fuzz [TARGET …] [--runs N]``: every target for N executions. (root)

Guided by coverage where atheris is installed; otherwise Hypothesis makes the bytes. A finding ends the
run with the traceback and leaves the bytes in a file, to be run again with ``--replay FILE``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_CORPUS = _HERE / "corpus"
_NAMES = ("gun", "websocket", "lex", "config")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(_NAMES))
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions of each target")
    parser.add_argument("--engine", choices=("auto", "atheris", "hypothesis"), default="auto")
    parser.add_argument("--grow", type=Path, help="folder that keeps what reached new code, by target")
    parser.add_argument("--replay", type=Path, help="run one file and nothing else")
    options = parser.parse_args()
    names = options.targets or list(_NAMES)
    if unknown := set(names) - set(_NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}")
    if options.replay is not None:
        _target(names[0])(options.replay.read_bytes())
        return 0
    engine = options.engine
    if engine == "auto":
        engine = "hypothesis" if importlib.util.find_spec("atheris") is None else "atheris"
    if len(names) > 1:
        # libFuzzer ends the process it runs in, so each target has its own.
        grow = [] if options.grow is None else ["--grow", str(options.grow)]
        runs = ["--runs", str(options.runs), "--engine", engine]
        command = [sys.executable, "-m", "fuzz", *runs, *grow]
        return max(subprocess.run([*command, name], check=False).returncode for name in names)
    (name,) = names
    print(f"{name}: {options.runs:,} executions with {engine}", flush=True)
    return (
        _atheris(name, options.runs, options.grow) if engine == "atheris" else _hypothesis(name, options.runs)
    )


def _target(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module("fuzz.targets").TARGETS[name]


def _atheris(name: str, runs: int, grow: Path | None) -> int:
    import atheris

    with atheris.instrument_imports(include=["air", "tomllib", "websockets"]):
        target = _target(name)
    # libFuzzer writes what reached new code into the first folder that it is given.
    grown = Path(tempfile.mkdtemp(prefix="air-fuzz-")) if grow is None else grow / name
    grown.mkdir(parents=True, exist_ok=True)
    folders = [str(grown), str(_CORPUS / name)]
    atheris.Setup(
        [
            sys.argv[0],
            *folders,
            f"-runs={runs}",
            "-max_len=4096",
            "-rss_limit_mb=4096",
            "-timeout=30",
            "-len_control=0",
            f"-artifact_prefix={tempfile.gettempdir()}/air-fuzz-{name}-",
            "-print_final_stats=1",
        ],
        target,
    )
    atheris.Fuzz()
    return 0


def _hypothesis(name: str, runs: int) -> int:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    target, began, done = _target(name), time.monotonic(), 0
    seeds = [path.read_bytes() for path in sorted((_CORPUS / name).glob("*"))]
    for seed in seeds:
        target(seed)
    mixed = st.builds(lambda a, b: a + b, st.sampled_from(seeds or [b""]), st.binary(max_size=64))

    @settings(
        max_examples=runs,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=1024) | mixed)
    def run(data: bytes) -> None:
        nonlocal done
        done += 1
        target(data)

    try:
        run()
    except Exception:
        traceback.print_exc()
        return 1
    print(f"{name}: {done:,} executions in {time.monotonic() - began:.0f} s, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
