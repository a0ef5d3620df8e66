"""Where files send a client whose proxy has taken a prefix off: back below that prefix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from epollwsgi.static.paths import as_asked
from tests.proxy.nginx import KEPT, running
from tests.support import Client, Server, ServerFactory

FILES = {
    "docs/index.html": "start of the documents",
    "docs/new.html": "the new page",
    "_redirects": "/old /docs/new\n/far https://other.example/x 302\n/asked/* /docs/new?a=:splat 307\n",
}
# Behind which prefix a site lies, as nginx says it.
LOCATIONS = """
    location /shop/ { proxy_set_header X-Forwarded-Prefix /shop; proxy_pass http://server/; }
    location /b/c/ { proxy_set_header X-Forwarded-Prefix /b/c; proxy_pass http://server/; }
    location / { proxy_set_header X-Forwarded-Prefix ""; proxy_pass http://server; }
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path / "site"


def test_a_site_behind_a_prefix_that_nginx_takes_off(start_server: ServerFactory, root: Path, tmp_path: Path) -> None:
    """Every answer by turns for each prefix, on one connection: what is remembered of one is never another's."""
    server = start_server(f"{root}/", "--forwarded-fields=prefix", "--pretty")
    forged = {"X_Forwarded_Prefix": "/evil"}
    with running(tmp_path / "nginx", f"127.0.0.1:{server.port}", KEPT.replace("$http_host", "h") + LOCATIONS) as nginx:
        for target, location in (
            ("/docs", "/docs/"),
            ("/docs?a=1", "/docs/?a=1"),
            ("/docs/index.html", "/docs/"),
            ("/docs/new.html", "/docs/new"),
            ("/old", "/docs/new"),
            ("/asked/x?b", "/docs/new?a=x&b"),
        ):
            for prefix in ("/shop", "", "/b/c", "/shop"):
                response, _ = nginx.fetch(prefix + target, **forged)
                assert response.headers["Location"] == prefix + location
                response, body = nginx.fetch(response.headers["Location"], **forged)
                assert (response.status, body.decode()) == (
                    200,
                    FILES["docs/new.html" if "new" in location else "docs/index.html"],
                )
        for prefix in ("/shop", "", "/b/c"):
            assert nginx.fetch(f"{prefix}/far")[0].headers["Location"] == "https://other.example/x"
            response, body = nginx.fetch(f"{prefix}/nothing", **forged)
            assert response.status == 404
            assert f'<a href="{prefix}/">'.encode() in body


def location(server: Server, target: str, fields: Mapping[str, str]) -> str:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with Client(server.address) as client:
        return client.request(f"GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())["Location"]


def test_files_beside_an_application(start_server: ServerFactory, root: Path) -> None:
    """Their paths hold the fixed script name, in whose place a believed one stands."""
    options = ("--static", f"/app/files={root}", "--static", f"/files={root}", "--script-name=/app")
    server = start_server("tests.apps.proxied:app", *options, "--forwarded-fields=prefix")
    believed = {"X-Forwarded-Prefix": "/shop"}
    assert location(server, "/app/files/docs", {}) == "/app/files/docs/"
    assert location(server, "/app/files/docs", believed) == "/shop/files/docs/"
    assert location(server, "/app/files/old", {"SCRIPT_NAME": "/shop"}) == "/shop/files/docs/new"
    assert location(server, "/files/docs", {}) == "/files/docs/"
    assert location(server, "/files/docs", believed) == "/shop/files/docs/"
    server = start_server("tests.apps.proxied:app", "--static", f"/files={root}")
    assert location(server, "/files/docs", believed) == "/files/docs/", "prefix is not believed"


@pytest.mark.parametrize(
    ("script_name", "fixed", "path", "expected"),
    [
        ("", "", "/a/", "/a/"),
        ("/shop", "", "/a/", "/shop/a/"),
        ("shop/", "", "/a/", "/shop/a/"),
        ("/", "", "/a/", "/a/"),
        ("//evil.example", "", "/a/", "/evil.example/a/"),
        ("/\\evil.example", "", "/a/", "/%5Cevil.example/a/"),
        ("/a b?c#d\"<\xe9", "", "/a/", "/a%20b%3Fc%23d%22%3C%E9/a/"),
        ("/a%20b", "", "/a/", "/a%20b/a/"),
        ("/shop", "/a", "/ab/", "/shop/ab/"),
        ("/shop", "/\xc3\xa9", "/%C3%A9/b", "/shop/b"),
        ("", "/a", "/a/b/", "/b/"),
    ],
)  # fmt: skip
def test_a_path_behind_a_prefix(script_name: str, fixed: str, path: str, expected: str) -> None:
    assert as_asked(path, script_name, fixed) == expected
