"""The table of statements against live servers: a site alone, beside an application, and with each option.

With EPOLLWSGI_TEST_STATIC_URL the rows of a site alone are sent to another server instead, see table.py.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from epollwsgi.http.dates import parse_date
from tests.connections import Address, Client
from tests.responses import Response
from tests.static.table import ROWS, STATEMENTS
from tests.static.table_fixture import LAST_MODIFIED, SECRET, build_tree
from tests.static.table_rows import Expected, Row, build_request
from tests.support import ServerFactory

URL = os.environ.get("EPOLLWSGI_TEST_STATIC_URL", "")
ROOT = os.environ.get("EPOLLWSGI_TEST_STATIC_ROOT", "")

# How a server runs: the positional argument and the options, in which {} is the tree.
SERVERS = {
    "site": ("{}", "--allow-source"),  # it holds .git and .env
    "beside": ("tests.apps.echo:app", "--static", "/={}"),
    "listing": ("{}", "--allow-source", "--listing"),
    "pretty": ("{}", "--allow-source", "--pretty"),
    "spa": ("{}", "--allow-source", "--spa"),
    "follow": ("{}", "--allow-source", "--follow-symlinks"),
}
# What a site answers by itself and leaves to an application beside it.
LEFT_TO_APPLICATION = (204, 400, 404, 405)
ETAG = re.compile(rb"\{etag (\S+?)(?: ([a-z]+))?\}")


class Asker:
    """One connection to a server that stays open through all requests, and the tags that the server gives."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.client: Client | None = None
        self.etags: dict[tuple[bytes, bytes], bytes] = {}

    def close(self) -> None:
        if self.client is not None:
            self.client.__exit__()
        self.client = None

    def request(self, data: bytes) -> Response:
        """After a failure the next request gets a connection of its own."""
        client, self.client = self.client or Client(self.address), None
        try:
            response = client.request(data)
        except BaseException:
            client.__exit__()
            raise
        self.client = client
        return response

    def resolve(self, text: bytes) -> bytes:
        """The text with its places filled in."""

        def etag(match: re.Match[bytes]) -> bytes:
            key = (match[1], match[2] or b"identity")
            if key not in self.etags:
                path, coding = key[0].decode("ascii"), key[1].decode("ascii")
                response = self.request(build_request("HEAD", path, (f"Accept-Encoding: {coding}",)))
                assert (response.get("Content-Encoding") or "identity") == coding
                self.etags[key] = response["ETag"].encode("ascii")
            return self.etags[key]

        return ETAG.sub(etag, text.replace(b"{L}", LAST_MODIFIED.encode("ascii")))

    def ask(self, row: Row) -> Response:
        """The response to a row."""
        return self.request(self.resolve(row.request))

    def check_fields(self, row: Row, response: Response) -> None:
        for name, expected in row.fields.items():
            value = response.get(name)
            wanted = self.resolve(expected.encode("ascii")).decode("ascii") if isinstance(expected, str) else expected
            assert is_as_expected(value, wanted), f"{name}: {value!r}, not {wanted!r}"


def is_as_expected(value: str | None, expected: Expected) -> bool:
    if isinstance(expected, re.Pattern):
        return value is not None and expected.fullmatch(value) is not None
    return expected(value) if callable(expected) else value == expected


Connect = Callable[[str], Asker]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(ROOT).resolve() if ROOT else tmp_path_factory.mktemp("table") / "site"
    if not root.exists() or not any(root.iterdir()):
        build_tree(root)
    return root


@pytest.fixture(scope="module")
def connect_to(start_module_server: ServerFactory, tree: Path) -> Iterator[Connect]:
    """One connection for each kind of server, which must stay open through all requests."""
    askers: dict[str, Asker] = {}
    with ExitStack() as stack:

        def address_of(name: str) -> Address:
            if not URL:
                target, *options = (text.format(tree) for text in SERVERS[name])
                return start_module_server(target, *options).address
            if name != "site":
                pytest.skip("not for another server")
            parts = urlsplit(URL)
            return parts.hostname or "127.0.0.1", parts.port or 80

        def connect(name: str) -> Asker:
            if name not in askers:
                askers[name] = Asker(address_of(name))
                stack.callback(askers[name].close)
            return askers[name]

        yield connect


def name_of(row: Row) -> str:
    return f"{row.number} {row.server} {row.says[:48]} {row.method} {row.target[:24]}"


def check(asker: Asker, row: Row, response: Response) -> None:
    """The response is what the row says, and what all responses are."""
    assert response.status == row.status, response.body[:200]
    asker.check_fields(row, response)
    if callable(row.content):
        row.content(response)
    elif row.content is not None:
        assert response.body == row.content
    if row.server != "follow":
        assert SECRET not in response.body
    if URL:
        return
    assert "close" not in response.tokens
    date = parse_date(response["Date"], time.time())
    assert date is not None
    assert abs(date - time.time()) < 30
    assert response["Server"].startswith("epollwsgi")
    assert row.server == "beside" or response["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_row(connect_to: Connect, row: Row) -> None:
    asker = connect_to(row.server)
    for _ in range(2):  # the second time from memory
        check(asker, row, asker.ask(row))


def test_rows_in_any_order(connect_to: Connect) -> None:
    """What is remembered of one request must not change the answer to another of the same path."""
    asker = connect_to("site")
    rows = [row for row in ROWS if row.server == "site"]
    for row in (*rows[::-1], *rows[::2], *rows[1::2]):
        response = asker.ask(row)
        assert response.status == row.status, name_of(row)
        asker.check_fields(row, response)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.method == "GET" and row.server != "beside" and b"\nRange:" not in row.request],
    ids=name_of,
)
def test_head_says_what_get_says(connect_to: Connect, row: Row) -> None:
    """2.3: the same status and fields, Content-Length included, and no content."""
    asker = connect_to(row.server)
    get, head = asker.ask(row), asker.ask(row._replace(request=b"HEAD" + row.request[3:]))
    assert head.status == get.status
    assert [field for field in head.fields if field[0] != "Date"] == [
        field for field in get.fields if field[0] != "Date"
    ]
    assert head.body == b""


@pytest.mark.parametrize("row", [row for row in ROWS if row.server == "site"], ids=name_of)
def test_beside_an_application(connect_to: Connect, row: Row) -> None:
    """The same file with the same answer, or the request goes to the application as it was sent."""
    asker = connect_to("beside")
    is_file = row.status not in LEFT_TO_APPLICATION if row.beside is None else row.beside
    for _ in range(2):
        response = asker.ask(row)
        if is_file:
            check(asker, row, response)
        else:
            assert response.status == 200
            if row.method != "HEAD":
                environ = json.loads(response.body)["environ"]
                assert (environ["REQUEST_METHOD"], environ["RAW_URI"]) == (row.method, row.target)


def test_every_statement_is_tested() -> None:
    """Each has rows here, or tests of its own elsewhere in this directory, which exist."""
    sources = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    rows = {row.number for row in ROWS}
    assert rows <= set(STATEMENTS)
    for number, tests in STATEMENTS.items():
        assert tests or number in rows, number
        for test in tests.split():
            assert f"def {test}(" in sources, f"{number}: {test}"
