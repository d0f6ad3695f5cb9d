"""The command line before it talks to anybody."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.errors import Misuse
from air.daemon.cli import main
from air.daemon.commands import assignment


@pytest.fixture(autouse=True)
def nowhere(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("AIR_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("name=Ann", "name", "Ann"),
        ("age=7", "age", 7),
        ("x=-1.5e3", "x", -1500.0),
        ("ok=true", "ok", True),
        ("gone=null", "gone", None),
        ('quoted="7"', "quoted", "7"),
        ('friend={"#":"bob"}', "friend", {"#": "bob"}),
        ("phone=007", "phone", "007"),
        ("odd=NaN", "odd", "NaN"),
        ("odd=-Infinity", "odd", "-Infinity"),
        ("formula=a=b", "formula", "a=b"),
        ("empty=", "empty", ""),
        ("deep=" + "[" * 100_000, "deep", "[" * 100_000),
        ("digits=" + "9" * 5000, "digits", "9" * 5000),
    ],
)
def test_a_value_is_json_when_it_can_be_else_text(text: str, key: str, value: object) -> None:
    assert assignment(text) == (key, value)


@given(st.text(min_size=1).filter(lambda key: "=" not in key), st.text())
def test_any_text_can_be_written_as_json(key: str, value: str) -> None:
    assert assignment(f"{key}={json.dumps(value)}") == (key, value)


@pytest.mark.parametrize("text", ["name", "", "=x"])
def test_what_is_no_assignment_is_a_mistake_in_usage(text: str) -> None:
    with pytest.raises(Misuse):
        assignment(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gte", "ann"], "did you mean get?"),
        (["frobnicate"], "there are run, put"),
        (["get"], "SOUL"),
        (["put", "ann"], "KEY=VALUE"),
        (["get", "ann", "name", "more"], "more"),
        (["get", "ann", "--limit", "many"], "--limit"),
        (["get", "ann", "--frm", "x"], "--frm"),
        (["--port", "70000"], "gun.port = '70000' (--port)"),
        (["run", "--backend", "twisted"], '"asyncio", "trio"'),
        (["run", "--admin", "8766"], "HOST:PORT"),
        (["run", "--admin", "127.0.0.1:x"], "admin.port"),
        (["run", "--set", "store.engin=memory"], "did you mean store.engine?"),
        (["run", "--set", "store"], "section.key=value"),
        (["run", "--config", "/no/such/file"], "/no/such/file"),
        (["id", "--api", "ftp://x"], "--api"),
        (["id", "--api", "http://x:y"], "--api"),
        (["id", "--api", "http://relay.example"], "--token-file"),
        (["get", "\udcff"], "UTF-8"),
    ],
)
def test_a_mistake_in_usage_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(arguments) == 2
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert err.startswith(b"air: ")
    assert err.count(b"\n") == 1
    assert words in err.decode()


@pytest.mark.parametrize("arguments", [["get", "x"], ["--json", "id"], ["stop", "--data", "/no/such/folder"]])
def test_no_daemon_is_exit_code_4(arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(arguments) == 4
    assert b"no daemon runs on" in capfdbinary.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["get", "--help"], ["--version"], ["put", "--version"]])
def test_help_is_no_mistake(arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(arguments) == 0
    out, err = capfdbinary.readouterr()
    assert out
    assert not err


def test_air_config_shows_where_a_value_came_from(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIR_GUN__PORT", "1234")
    assert main(["config", "--json", "--set", "store.engine=memory"]) == 0
    shown = json.loads(capfdbinary.readouterr().out)
    assert shown["gun.port"] == {"value": 1234, "source": "AIR_GUN__PORT"}
    assert shown["store.engine"] == {"value": "memory", "source": "--set"}
    assert shown["gun.host"] == {"value": "127.0.0.1", "source": "built-in"}
    assert main(["--port", "7", "config"]) == 0
    assert b"port = 7  # --port\n" in capfdbinary.readouterr().out
    assert main(["config", "--template"]) == 0
    assert b"# engine = " in capfdbinary.readouterr().out
