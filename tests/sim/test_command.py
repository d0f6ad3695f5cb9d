"""`air sim` as its users meet it: the page about it is run, and what it prints can be relied on."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from air.daemon.cli import main
from air.daemon.simulate import command
from air.sim.plan import Options, chaotic
from air.sim.workloads import find

ROOT = Path(__file__).absolute().parents[2]
PAGE = (ROOT / "docs" / "simulator.md").read_text()
COMMANDS = re.findall(r"^```sh( fails)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def air(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    assert words[:2] == ["air", "sim"]
    return subprocess.run(
        [sys.executable, "-m", "air", *words[1:]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.parametrize(("fails", "line"), COMMANDS, ids=[line.strip()[:70] for _, line in COMMANDS])
def test_every_command_of_the_page_does_what_the_page_says(fails: str, line: str, folder: Path) -> None:
    done = air(line, folder)
    assert done.returncode == (1 if fails else 0), done.stdout + done.stderr
    if fails:
        assert "check" in done.stdout
        replay = re.search(r"^replay: (.*)$", done.stderr, re.MULTILINE)
        assert replay is not None
        again = air(replay[1], folder)
        assert again.returncode == 1
        assert again.stdout.split("trace ")[1][:24] == done.stdout.split("trace ")[1][:24]
    if "--timeline" in line:
        text = (folder / "timeline.html").read_text()
        assert "<svg" in text
        assert "src=" not in text
        assert "href=" not in text


def test_the_page_shows_the_counter_as_it_is_in_the_examples() -> None:
    shown = re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert shown[1] in (ROOT / "examples" / "sim" / "counter.py").read_text()


def test_with_json_each_run_is_one_object_and_the_exit_code_tells_whether_all_are_well(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["sim", "--json", "--runs", "3", "--peers", "4", "--minutes", "0.2", "--seed", "5"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [5, 6, 7]
    for line in lines:
        assert line["ok"] is True
        assert line["violations"] == []
        assert line["peers"] == 4
        assert {"trace", "events", "virtual_s", "wall_s", "converged_s", "bytes"} <= set(line)


def test_a_run_that_fails_can_be_made_small(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "def workload(app):\n"
        "    for at in range(20):\n"
        "        app.put(app.peers[-1], 's', {'k': at}, at=at)\n"
        "def check(views):\n"
        "    assert views[-1]['s'].get('k') != 13 and views[-1]['s'].get('k') != 19, 'unlucky'\n"
    )
    options = ["--peers", "4", "--minutes", "0.5", "--workload", str(own), "--crash", "0.05", "--skew", "1"]
    assert main(["sim", "--json", "--shrink", *options]) == 1
    line = json.loads(capfd.readouterr().out)
    assert line["violations"][0]["rule"] == "check"
    assert line["violations"][0]["text"] == "unlucky"
    assert line["writes"] == 1
    assert line["faults"] == 0


@pytest.mark.parametrize(
    "options",
    [
        Options(peers=9, seed=4, partition=30.0, loss=0.1, skew=600.0, crash=0.01, workload="hot"),
        Options(tight=True, only_faults=(), only_writes=(1, 2, 9)),
        chaotic(5, 17),
        chaotic(50, 18, tight=False),
    ],
)
def test_the_command_that_is_printed_means_the_same_run(options: Options) -> None:
    from argparse import ArgumentParser
    from dataclasses import fields

    from air.daemon.simulate import add_options

    parser = ArgumentParser()
    add_options(parser)
    args = parser.parse_args(shlex.split(command(options))[2:])
    given = {
        field.name: getattr(args, field.name)
        for field in fields(Options)
        if field.name not in ("peers", "seed", "chaos") and getattr(args, field.name) is not None
    }
    read = chaotic(args.peers, args.seed, **given) if args.chaos else Options(args.peers, args.seed, **given)
    assert read == options


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--workload", "caht"], "no workload caht"),
        (["--workload", "missing.py"], "cannot read missing.py"),
        (["--peers", "1"], "2 to 10000 peers"),
        (["--partition", "soon"], "no length of time"),
        (["--topology", "ring"], "ring"),
        (["--only-faults", "x"], "no list of numbers"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    words: list[str], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", *words]) == 2
    told = capfd.readouterr().err
    assert text in told
    assert told.count("\n") == 1


def test_a_workload_must_be_a_function(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text("workload = 7\n")
    assert main(["sim", "--workload", str(tmp_path / "own.py")]) == 2
    assert "defines no function workload" in capfd.readouterr().err
    assert callable(find("chat"))
