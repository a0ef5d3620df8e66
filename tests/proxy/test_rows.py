"""The rows of rows.py: each to the parser of a connection, again and again, and to live servers in every cut."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from epollwsgi.config.load import load
from epollwsgi.errors import HTTPError
from epollwsgi.http.fields import DROPPED
from epollwsgi.http.forwarded import Peers
from epollwsgi.http.head import HeadParser, check_host
from epollwsgi.http.memory import SectionMemory
from epollwsgi.service import build_forwarding
from tests.proxy.rows import LOCAL, MADE, PEER, ROWS, Row
from tests.support import Failed, Server, ServerFactory, parse_responses, splits, stop_all, try_exchange_many

MADE_ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")


def build_parser(row: Row) -> HeadParser:
    """The parser that a connection from 127.0.0.1 has under the settings of a row."""
    names = {"script-name": "script_name", "header-map": "header_map", "forwarder-headers": "forwarder_headers"}
    given: dict[str, Any] = {"forwarded_allow_ips": [row.peers], "forwarded_fields": [row.believed]}
    for option in row.settings:
        name, _, value = option.removeprefix("--").partition("=")
        given[names[name]] = [value] if name == "forwarder-headers" else value
    settings = load(given, {}).settings
    forwarding = build_forwarding(settings)
    is_trusted = Peers(settings.forwarded_allow_ips)["127.0.0.1"]
    return HeadParser(
        header_map=settings.header_map,
        script_name=settings.script_name,
        names=forwarding.names if is_trusted else forwarding.names_of_others,
        believe=forwarding.apply if is_trusted else None,
    )


def new_environ() -> dict[str, Any]:
    return {
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": PEER,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": LOCAL,
        "SCRIPT_NAME": "",
        "epollwsgi.request_id": "",
    }


def parse(row: Row, parser: HeadParser, memory: SectionMemory) -> dict[str, Any] | int:
    """What `connection` makes of the head; the status of a refusal."""
    data = row.data
    line_end, end = data.index(b"\r\n"), data.index(b"\r\n\r\n")
    request = parser.parse_request_line(data[:line_end])
    try:
        environ, roles = memory.parse(data, line_end, end, parser, new_environ)
        check_host(request, environ, parser.believe)
    except HTTPError as error:
        return error.status
    assert not roles & ~DROPPED, "nobody else need know"
    environ["PATH_INFO"] = request.path_info
    environ["epollwsgi.request_id"] = environ["epollwsgi.request_id"] or MADE
    return environ


def find_wrong(row: Row, environ: dict[str, Any]) -> str:
    return "; ".join(
        f"{key}: {environ.get(key)!r} instead of {value!r}"
        for key, value in row.expected.items()
        if environ.get(key) != value and not (key == "SCRIPT_NAME" and row.settings and row.environ == {})
    )


@pytest.mark.parametrize("name", ROWS)
def test_parsed(name: str) -> None:
    """The first time, and when the connection remembers the section, in part or whole."""
    row = ROWS[name]
    parser, memory = build_parser(row), SectionMemory()
    for _ in range(4):
        found = parse(row, parser, memory)
        if isinstance(found, int):
            assert row.environ is None
            assert found == 400
            assert memory.environ is None, "what is refused is not remembered"
            continue
        assert row.environ is not None, f"passed: {found}"
        assert not find_wrong(row, found)
        found["left behind"] = "by an application"
    if memory.environ is not None:
        assert "left behind" not in memory.environ


@pytest.mark.parametrize("leading", [0, 6], ids=["no lines before", "six lines before"])
def test_parsed_among_others(leading: int) -> None:
    """One parser and one connection for all rows of the same settings: what came before plays no part."""
    before = tuple(b"Accept-X%d: y" % number for number in range(leading))
    shared: dict[tuple[str, ...], tuple[HeadParser, SectionMemory]] = {}
    for _ in range(2):
        for name, row in ROWS.items():
            parser, memory = shared.setdefault(row.options, (build_parser(row), SectionMemory()))
            one = Row(row.name, (*before, *row.fields), row.environ, head=row.head)
            found = parse(one, parser, memory)
            assert isinstance(found, int) == (row.environ is None), name
            assert isinstance(found, int) or not find_wrong(row, found), name


# --- live -----------------------------------------------------------------------------------------------------------

# Settings that fewer rows have are left to the parser: each group costs the start of a server.
LEAST_ROWS = 2
GROUPS: dict[tuple[str, ...], list[tuple[str, Row]]] = {}
for _name, _row in ROWS.items():
    GROUPS.setdefault(_row.options, []).append((_name, _row))
SERVED = {options: rows for options, rows in GROUPS.items() if len(rows) >= LEAST_ROWS}

Servers = dict[tuple[str, ...], Server]


@pytest.fixture(scope="module")
def servers(start_module_server: ServerFactory) -> Iterator[Servers]:
    """A server for each group of settings."""
    running = {options: start_module_server("tests.apps.echo:app", *options, wait=False) for options in SERVED}
    for server in running.values():
        server.learn_addresses()
    yield running
    stop_all(list(running.values()))


def judge(row: Row, server: Server, data: bytes | Failed, count: int) -> str:
    """What is wrong with the answers to a row that was sent `count` times, '' for nothing."""
    if isinstance(data, Failed):
        return str(data)
    responses = parse_responses(data, ["GET"] * count)
    if row.environ is None:
        return "" if [one.status for one in responses] == [400] else f"passed: {data[:300]!r}"
    if [one.status for one in responses] != [200] * count:
        return f"refused: {data[:300]!r}"
    ids = set()
    for response in responses:
        environ = json.loads(response.body)["environ"]
        if environ["epollwsgi.peer"][0] != "127.0.0.1":
            return "the peer has changed"
        ids.add(environ["epollwsgi.request_id"])
        if MADE_ID.fullmatch(environ["epollwsgi.request_id"]):
            environ["epollwsgi.request_id"] = MADE
        if environ["SERVER_PORT"] == str(server.port):
            environ["SERVER_PORT"] = LOCAL
        if environ.get("REMOTE_PORT") == environ["epollwsgi.peer"][1]:
            environ["REMOTE_PORT"] = PEER
        if wrong := find_wrong(row, environ):
            return wrong
    expected_ids = count if row.expected["epollwsgi.request_id"] == MADE else 1
    return "" if len(ids) == expected_ids else f"ids: {ids}"


# As the pieces of one request, and three requests in a row on one connection.
CUTS = [*(name for name, _ in splits(b"x")), "three times"]


@pytest.mark.parametrize("cut", CUTS)
def test_served(cut: str, servers: Servers) -> None:
    wrong = []
    for options, rows in SERVED.items():
        server = servers[options]
        count = 3 if cut == "three times" else 1
        jobs = [[row.data] * count if count > 1 else dict(splits(row.data))[cut] for _, row in rows]
        counts = [1 if row.environ is None else count for _, row in rows]
        found = try_exchange_many(
            server.address, jobs, timeout=12, count=0, half_close=True, methods=[["GET"] * count for _ in rows]
        )
        for (name, row), data, expected in zip(rows, found, counts, strict=True):
            if what := judge(row, server, data, expected):
                wrong.append(f"{name}: {what}")
    assert not wrong, f"{len(wrong)} rows:\n" + "\n".join(wrong)
