"""Settings: sources, their order, and what is refused."""

from __future__ import annotations

import contextlib
import re
import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.errors import ConfigError
from air.daemon import confdoc
from air.daemon.settings import Flag, Settings, load
from air.node.config import Config, GunConfig, default_data, keys, size_text

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    return tmp_path


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def read(path: Path, text: str) -> Settings:
    return load({"XDG_CONFIG_HOME": "/nowhere"}, config_file=write(path / "air.toml", text))


def refused(path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        read(path, text)
    return error.value


def test_a_later_source_wins_and_each_value_knows_its_own(home: Path) -> None:
    user = home / "xdg" / "air" / "air.toml"
    write(user, "[gun]\nport = 1\nlinks_max = 1\nhost = 'user'\n[store]\ncache_bytes = 1\n")
    file = write(home / "mine.toml", "[gun]\nport = 2\nlinks_max = 2\n[store]\ncache_bytes = 2")
    environ = {"XDG_CONFIG_HOME": str(home / "xdg"), "AIR_GUN__PORT": "3", "AIR_STORE__CACHE_BYTES": "3"}
    settings = load(environ, config_file=file, flags=[Flag("gun.port", "4", "--port")])
    gun, store = settings.config.gun, settings.config.store
    assert (gun.port, store.cache_bytes, gun.links_max, gun.host) == (4, 3, 2, "user")
    assert settings.sources["gun.port"] == "--port"
    assert settings.sources["store.cache_bytes"] == "AIR_STORE__CACHE_BYTES"
    assert settings.sources["gun.links_max"] == file
    assert settings.sources["gun.host"] == str(user)
    assert settings.sources["gun.static"] == "built-in"
    assert settings.value("gun.port") == 4


def test_nothing_set_is_the_built_in_configuration(home: Path) -> None:
    assert load({}).config == Config()


def test_data_stands_under_xdg_data_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data() == home / ".local" / "share" / "air"
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert load({}).config.node.data == Path("/elsewhere/air")
    assert load({}).config.identity_path == Path("/elsewhere/air/identity.key")
    assert load({}).config.token_path == Path("/elsewhere/air/admin.token")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert default_data() == home / ".local" / "share" / "air"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[gun]\nprot = 1", "config.unknown-key", ["gun.prot", "air.toml", "did you mean gun.port?"]),
        ("[gnu]\nport = 1", "config.unknown-key", ["[gnu]", "did you mean gun?"]),
        ("[store]\nport = 1", "config.unknown-key", ["store.port", "did you mean gun.port?"]),
        ("port = 1", "config.unknown-key", ["port"]),
        ("gun = 1", "config.bad-value", ["gun = 1", "[gun]"]),
        ('[gun]\nport = "x"', "config.bad-value", ["gun.port = 'x'", "air.toml", "from 0 to 65535"]),
        ("[gun]\nport = true", "config.bad-value", ["True"]),
        ("[gun]\nport = 65536", "config.bad-value", ["65536"]),
        ("[gun]\nport = -1", "config.bad-value", ["-1"]),
        ("[gun]\nport = 1.5", "config.bad-value", ["1.5"]),
        ("[gun]\nhost = ''", "config.bad-value", ["text that is not empty"]),
        ("[gun]\npeers = 'ws://x'", "config.bad-value", ["a list of texts"]),
        ("[gun]\npeers = [1]", "config.bad-value", ["a list of texts"]),
        ("[store]\nengine = 'sqlit'", "config.bad-value", ['"sqlite", "memory"', "did you mean sqlite?"]),
        ("[store]\ncache_bytes = '1 parsec'", "config.bad-value", ["1 parsec", "64 MiB"]),
        ("[store]\ncommit_window_ms = nan", "config.bad-value", ["nan", "from 0 to 1000"]),
        ("[store]\ncommit_window_ms = inf", "config.bad-value", ["inf"]),
        ("[admin]\nallow_remote = 'yes'", "config.bad-value", ["true or false"]),
        ("[node]\ndata = ''", "config.bad-value", ["a path"]),
        ('[node]\ndata = "a\\u0000b"', "config.bad-value", ["a path"]),
        ("[gun]\ntls_cert = 'c.pem'", "config.contradiction", ["gun.tls_key"]),
        ("[gun", "config.bad-toml", ["air.toml", "Expected ']'"]),
        ("[gun]\nx = " + "[" * 5000, "config.bad-toml", []),
    ],
)
def test_a_mistake_names_key_value_source_and_what_was_expected(
    home: Path, text: str, code: str, words: list[str]
) -> None:
    error = refused(home, text)
    assert error.code == code
    assert "\n" not in error.message
    assert len(error.message) < 400
    for word in words:
        assert word in error.message


def test_a_file_that_was_named_must_exist_but_the_users_own_need_not(home: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load({}, config_file=str(home / "missing.toml"))
    assert error.value.code == "config.no-file"
    assert load({"XDG_CONFIG_HOME": str(home / "missing")}).config == Config()


def test_a_file_that_is_not_utf8_is_refused(home: Path) -> None:
    (home / "air.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as error:
        load({}, config_file=str(home / "air.toml"))
    assert error.value.code == "config.bad-toml"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AIR_STORE__ENGIN", "did you mean AIR_STORE__ENGINE?"),
        ("AIR_STORE_ENGINE", "did you mean AIR_STORE__ENGINE?"),
        ("AIR_NONSENSE__AT_ALL", "AIR_NONSENSE__AT_ALL"),
    ],
)
def test_an_unknown_variable_is_refused(home: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load({name: "memory"})
    assert error.value.code == "config.unknown-key"
    assert words in error.value.message


def test_variables_that_are_no_settings_are_none_of_our_business(home: Path) -> None:
    assert load({"AIR_DEBUG": "1", "AIR_VECTORS": "/x", "AIRPORT": "LIS"}).config == Config()


def test_text_from_the_environment_becomes_what_the_key_holds(home: Path) -> None:
    environ = {
        "AIR_GUN__PORT": "0",
        "AIR_GUN__PEERS": "ws://a/gun, wss://b/gun,",
        "AIR_STORE__CACHE_BYTES": "1.5 MiB",
        "AIR_STORE__COMMIT_WINDOW_MS": "2.5",
        "AIR_ADMIN__ALLOW_REMOTE": "true",
        "AIR_STORE__KEY_FILE": "",
        "AIR_NODE__DATA": "~/graph",
    }
    config = load(environ).config
    assert config.gun.port == 0
    assert config.gun.peers == ("ws://a/gun", "wss://b/gun")
    assert config.store.cache_bytes == 1_572_864
    assert config.store.commit_window_ms == 2.5
    assert config.admin.allow_remote is True
    assert config.store.key_file is None
    assert config.node.data == home / "graph"


@pytest.mark.parametrize("raw", ["", "x", "1.5", "1e3", "0x10", "١x", "9" * 5000])
def test_text_that_is_no_port_is_refused_shortly(home: Path, raw: str) -> None:
    with pytest.raises(ConfigError) as error:
        load({"AIR_GUN__PORT": raw})
    assert error.value.code == "config.bad-value"
    assert len(error.value.message) < 300


def test_a_path_in_a_file_is_taken_from_the_folder_of_the_file(home: Path) -> None:
    settings = read(home / "etc", "[node]\ndata = '../graph'\n[gun]\nstatic = '/srv'\n")
    assert settings.config.node.data == home / "graph"
    assert settings.config.gun.static == Path("/srv")


def test_a_list_flag_replaces_the_list_of_the_file(home: Path) -> None:
    file = write(home / "air.toml", "[gun]\npeers = ['ws://old/gun']")
    settings = load({}, config_file=file, flags=[Flag("gun.peers", ["ws://a,b/gun"], "--peer")])
    assert settings.config.gun.peers == ("ws://a,b/gun",)


def test_contradicting_settings_are_refused_in_code_as_well() -> None:
    with pytest.raises(ConfigError):
        Config(gun=GunConfig(tls_key=Path("key.pem")))


@given(st.integers(0, 2**40))
def test_a_size_survives_being_written_and_read(count: int) -> None:
    rule = next(rule for key, _, rule in keys() if key == "store.cache_bytes")
    assert rule.read(size_text(count)) == count
    assert rule.read(count) == count


WORDS = st.sampled_from(
    ["gun", "store", "port", "engine", "peers", "data", "[", "]", "=", "\n", "1", '"x"', "[]"]
)


@given(
    st.one_of(
        st.binary(max_size=80), st.lists(WORDS, max_size=12).map(lambda words: " ".join(words).encode())
    )
)
def test_whatever_a_file_holds_it_is_settings_or_a_config_error(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(content)
        file.flush()
        with contextlib.suppress(ConfigError):
            load({"XDG_CONFIG_HOME": "/nowhere"}, config_file=file.name)


@given(st.sampled_from([key for key, _, _ in keys()]), st.text(max_size=30))
def test_whatever_a_variable_holds_it_is_settings_or_a_config_error(key: str, raw: str) -> None:
    with contextlib.suppress(ConfigError):
        load({"XDG_CONFIG_HOME": "/nowhere", "AIR_" + key.replace(".", "__").upper(): raw})


def test_every_key_is_documented_and_its_default_keeps_its_own_rule() -> None:
    documented = confdoc.documentation()
    config = Config()
    for key, _, rule in keys():
        section, _, name = key.partition(".")
        assert len(documented[key]) > 10, key
        assert len(documented[section]) > 10, section
        value = getattr(getattr(config, section), name)
        raw = "" if value is None else list(value) if isinstance(value, tuple) else value
        assert rule.read(str(raw) if isinstance(raw, Path) else raw) == value, key


def test_the_template_changes_nothing_and_its_lines_are_the_defaults(home: Path) -> None:
    text = confdoc.template()
    assert read(home, text).config == Config()
    switched_on = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert len(tomllib.loads(switched_on)) == 7
    switched_on = switched_on.replace("$XDG_DATA_HOME", str(home / ".local" / "share"))
    assert read(home, switched_on).config == Config()


def test_what_air_config_prints_can_be_used_as_a_configuration(home: Path) -> None:
    environ = {
        "AIR_GUN__PEERS": "ws://ü/gun",
        "AIR_GUN__STATIC": '/a "quoted" \\ path',
        "AIR_LOG__LEVEL": "debug",
    }
    settings = load(environ)
    text = confdoc.effective(settings)
    assert "# AIR_LOG__LEVEL" in text
    assert read(home, text).config == settings.config


def test_the_page_of_the_manual_is_up_to_date() -> None:
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == confdoc.markdown()
