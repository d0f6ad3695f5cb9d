"""Files of a directory over HTTP, and everything that must not be reachable."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from air.base.errors import Closed, ConfigError
from air.transport import tcp
from air.transport.http import HttpResponse, Request
from air.transport.static import StaticConfig, StaticFiles, not_modified, segments
from air.transport.websocket import WebSocketConfig, WebSocketConn, WebSocketListener


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "sub dir").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / ".git").mkdir()
    (root / "index.html").write_text("<p>front</p>")
    (root / "app.js").write_text("1")
    (root / "sub dir" / "index.html").write_text("sub")
    (root / "ü.txt").write_text("umlaut")
    (root / "noend").write_text("x")
    (root / "big.bin").write_bytes(os.urandom(1000) * 1000)
    (root / ".env").write_text("secret")
    (root / ".git" / "config").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "site-two").mkdir()
    (tmp_path / "site-two" / "a.txt").write_text("secret")
    (root / "out.txt").symlink_to(tmp_path / "outside.txt")
    (root / "outdir").symlink_to(tmp_path / "site-two")
    (root / "hidden.txt").symlink_to(root / ".env")
    (root / "inside.js").symlink_to(root / "app.js")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return root


async def get(files: StaticFiles, path: str, method: str = "GET", **headers: str) -> HttpResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await files(Request(method, path, names))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/", b"<p>front</p>", "text/html; charset=utf-8"),
        ("/?query=1", b"<p>front</p>", "text/html; charset=utf-8"),
        ("/index.html", b"<p>front</p>", "text/html; charset=utf-8"),
        ("/app.js?v=2", b"1", "text/javascript; charset=utf-8"),
        ("//app.js", b"1", "text/javascript; charset=utf-8"),
        ("/inside.js", b"1", "text/javascript; charset=utf-8"),
        ("/sub%20dir/", b"sub", "text/html; charset=utf-8"),
        ("/%C3%BC.txt", b"umlaut", "text/plain; charset=utf-8"),
        ("/noend", b"x", "application/octet-stream"),
    ],
)
async def test_a_file_is_served_with_its_type(site: Path, path: str, body: bytes, kind: str) -> None:
    response = await get(StaticFiles(site), path)
    assert (response.status, response.body) == (200, body)
    assert response.headers["Content-Type"] == kind
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    [
        "/missing",
        "/../outside.txt",
        "/sub%20dir/../../outside.txt",
        "/%2e%2e/outside.txt",
        "/%2e%2e%2foutside.txt",
        "/..%2foutside.txt",
        "/..%5coutside.txt",
        "/.%2e/outside.txt",
        "/%252e%252e/outside.txt",
        "/site-two/../../site-two/a.txt",
        "/out.txt",
        "/outdir/a.txt",
        "/outdir/",
        "/outdir",
        "/hidden.txt",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/loop",
        "/pipe",
        "/app.js/",
        "/app.js/x",
        "/app.js%00.html",
        "/%00",
        "/%ff",
        "/empty/",
        "*",
        "http://here/app.js",
        "app.js",
        "",
        "/" + "a" * 5000,
        "/" + "a/" * 3000,
    ],
)
async def test_nothing_else_is_reachable(site: Path, path: str) -> None:
    with anyio.fail_after(5):
        response = await get(StaticFiles(site), path)
    assert response.status == 404
    assert response.body == b"Not Found\n"


@pytest.mark.anyio
async def test_an_absolute_path_stays_below_the_root(site: Path) -> None:
    outside = site.parent / "outside.txt"
    assert (await get(StaticFiles(site), "/" + str(outside))).status == 404


@pytest.mark.anyio
async def test_a_directory_without_its_slash_redirects_inside_this_server(site: Path) -> None:
    for path in ("/sub%20dir", "//sub%20dir"):
        response = await get(StaticFiles(site), path)
        assert (response.status, response.headers["Location"]) == (301, "/sub%20dir/")


@pytest.mark.anyio
async def test_a_known_tag_is_not_sent_again_until_the_file_changes(site: Path) -> None:
    files = StaticFiles(site)
    first = await get(files, "/app.js")
    tag = first.headers["ETag"]
    again = await get(files, "/app.js", if_none_match=f'"other", W/{tag}')
    assert (again.status, again.body) == (304, b"")
    (site / "app.js").write_text("22")
    changed = await get(files, "/app.js", if_none_match=tag)
    assert (changed.status, changed.body) == (200, b"22")


@pytest.mark.anyio
async def test_a_big_file_goes_in_pieces_and_whole_through_a_socket(site: Path) -> None:
    files = StaticFiles(site, StaticConfig(whole_bytes_max=64 * 1024))
    big = await get(files, "/big.bin")
    assert not isinstance(big.body, bytes)
    assert big.headers["Content-Length"] == "1000000"

    async def unused(conn: WebSocketConn) -> None:
        await conn.receive()

    async def run() -> None:
        await listener.serve(unused, http=files)

    config = WebSocketConfig(close_seconds=0.5)
    async with (
        WebSocketListener.bind("127.0.0.1", 0, config=config) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run)
        for method, size in ((b"GET", 1_000_000), (b"HEAD", 0)):
            stream = await tcp.dial(*listener.addresses[0])
            await stream.send(method + b" /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            with pytest.raises(Closed):
                while True:
                    answer += await stream.receive()
            await stream.aclose()
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"\r\nContent-Length: 1000000\r\n" in head + b"\r\n"
            assert body == (site / "big.bin").read_bytes()[:size]
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_link_that_takes_the_place_of_a_file_is_not_followed(site: Path) -> None:
    (site / "big.bin").write_bytes(bytes(1_000_000))
    response = await get(StaticFiles(site), "/big.bin")
    assert not isinstance(response.body, bytes)
    (site / "big.bin").unlink()
    (site / "big.bin").symlink_to(site.parent / "outside.txt")
    with pytest.raises(OSError):
        _ = [piece async for piece in response.body]


def test_a_root_that_is_no_directory_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        StaticFiles(tmp_path / "missing")
    assert caught.value.code == "http.no-directory"


def test_paths_are_decoded_once() -> None:
    assert segments("/a%2520b/c") == ("a%20b", "c")
    assert segments("/") == ()
    assert segments("/a/%2f") is None


def test_a_star_matches_every_tag() -> None:
    assert not_modified("*", '"a"')
    assert not not_modified(None, '"a"')
    assert not not_modified('"b"', '"a"')
