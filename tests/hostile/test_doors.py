"""The doors of a running daemon, tried over raw sockets: origins, host names, tokens, files."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator

import pytest

from air.daemon import guard
from tests.hostile.daemons import Daemon, running

pytestmark = pytest.mark.hostile

SECRET = b"nobody may read this"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("doors")
    site = folder / "site"
    site.mkdir()
    (site / "index.html").write_text("<p>front</p>")
    (folder / "secret.txt").write_bytes(SECRET)
    (site / "way.txt").symlink_to(folder / "secret.txt")
    (site / "up").symlink_to(folder)
    lines = ("[gun]", 'origins = ["https://app.example"]', f'static = "{site}"')
    with running(folder, *lines) as daemon:
        yield daemon


def ask(port: int, *lines: str) -> tuple[int, bytes]:
    """Status and the whole answer of one raw request."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = b""
        while b"\r\n\r\n" not in answer or b"101" not in answer[:20]:
            piece = sock.recv(65_536)
            if not piece:
                break
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer


UPGRADE = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (["Origin: https://app.example"], 101),
        ([], 101),
        (["Origin: https://evil.example"], 403),
        (["Origin: http://app.example"], 403),
        (["Origin: https://app.example.evil.example"], 403),
        (["Origin: https://app.example:8443"], 403),
        (["Origin: null"], 403),
        (["Origin: https://app.example, https://evil.example"], 403),
        (["Origin: https://evil.example", "Origin: https://app.example"], 403),
    ],
)
def test_only_pages_of_the_configured_origins_may_connect(
    daemon: Daemon, origin: list[str], status: int
) -> None:
    assert ask(daemon.port, "GET /gun HTTP/1.1", "Host: h", *UPGRADE, KEY, *origin)[0] == status


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/x/../../secret.txt",
        "/./../secret.txt",
        "/..\\secret.txt",
        "/%5c..%5csecret.txt",
        "//../secret.txt",
        "/..;/secret.txt",
        "/%00/../secret.txt",
        "/index.html/../../secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/way.txt",
        "/up/secret.txt",
        "../secret.txt",
        "http://h/../secret.txt",
        "file:///etc/passwd",
        "/" + "../" * 20 + "etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_folder_of_static_files(daemon: Daemon, path: str) -> None:
    status, answer = ask(daemon.port, f"GET {path} HTTP/1.1", "Host: h")
    assert status in (400, 404), answer
    assert SECRET not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: localhost"], 200),
        (["Host: 127.0.0.1"], 200),
        (["Host: evil.example"], 403),
        (["Host: 127.0.0.1.evil.example"], 403),
        (["Host: localhost", "Origin: https://evil.example"], 403),
        (["Host: localhost", "Origin: null"], 403),
    ],
)
def test_the_admin_interface_serves_no_foreign_name_and_no_foreign_page(
    daemon: Daemon, headers: list[str], status: int
) -> None:
    port = int(daemon.admin.rpartition(":")[2])
    for path in ("/health", "/v1/id"):
        lines = [*headers, "Connection: close", f"Authorization: Bearer {daemon.token}"]
        assert ask(port, f"GET {path} HTTP/1.1", *lines)[0] == status


def test_the_admin_interface_tells_nothing_without_the_whole_token(daemon: Daemon) -> None:
    port = int(daemon.admin.rpartition(":")[2])
    for token in ("", "x", daemon.token[:-1], daemon.token + "0", daemon.token.swapcase() + " "):
        lines = ["Host: localhost", "Connection: close", f"Authorization: Bearer {token}"]
        assert ask(port, "GET /v1/id HTTP/1.1", *lines)[0] == 401
        assert ask(port, "POST /v1/stop HTTP/1.1", *lines, "Content-Length: 0")[0] == 401
    assert daemon.alive


def test_tokens_are_compared_in_constant_time() -> None:
    assert "compare_digest(" in inspect.getsource(guard)
