"""Each row of the tables sent to a live server: whole, byte by byte, cut behind and within each CRLF.

Many connections at once keep it quick. What passed must have reached the application as the row says; what is refused
gets one response and the end of the connection, with nothing of the request in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.support import (
    BadResponse,
    Failed,
    Response,
    Server,
    ServerFactory,
    parse_responses,
    splits,
    stop_all,
    try_exchange_many,
)
from tests.wire.rows import Answer, Row, Settings, get
from tests.wire.rows_body import BODY_ROWS
from tests.wire.rows_head import HEAD_ROWS

SPLITS = [name for name, _ in splits(b"x")]
# Longer inputs are cut into single bytes at both ends only.
EVERY_BYTE_UP_TO = 4000

GROUPS: dict[str, list[Row]] = {"head": [], "body": []}
for _table, _rows in (("head", HEAD_ROWS), ("body", BODY_ROWS)):
    for _row in _rows:
        _key = " ".join(f"{name}={value}" for name, value in _row.settings) or _table
        GROUPS.setdefault(_key, []).append(_row)

Servers = dict[Settings, Server]


@pytest.fixture(scope="module")
def servers(start_module_server: ServerFactory) -> Iterator[Servers]:
    """A server for each group of settings."""
    running: Servers = {}
    for rows in GROUPS.values():
        settings = rows[0].settings
        if settings not in running:
            options = [f"--{name.replace('_', '-')}={value}" for name, value in settings]
            # A refusal must come at once, not when time is up.
            running[settings] = start_module_server(
                "tests.apps.echo:app", "--header-timeout=60", "--body-timeout=60", *options, wait=False
            )
    for server in running.values():
        server.learn_addresses()
    yield running
    stop_all(list(running.values()))


def check_echo(answer: Answer, response: Response) -> None:
    assert response.status in answer.statuses
    if response.status == 204:  # OPTIONS *
        assert "Allow" in response
        return
    if not response.body:  # to a HEAD
        return
    seen = json.loads(response.body)
    for key, value in answer.environ.items():
        assert seen["environ"].get(key) == value, key
    if answer.body is not None:
        assert seen["length"] == len(answer.body)
        assert seen["sha256"] == hashlib.sha256(answer.body).hexdigest()


def check_refusal(answer: Answer, response: Response, bodies: dict[tuple[int, bool], bytes]) -> None:
    assert response.status in answer.statuses
    assert response.tokens == {"close"}
    assert "Date" in response
    assert int(response["Content-Length"]) >= len(response.body)
    assert response.version == "HTTP/1.1"
    # One page for each status: nothing of the request can be in it.
    known = bodies.setdefault((response.status, not response.body), response.body)
    assert response.body == known


def check(row: Row, data: bytes | Failed, bodies: dict[tuple[int, bool], bytes]) -> None:
    if isinstance(data, Failed):
        raise data
    responses = parse_responses(data, row.methods)
    assert [response.status for response in responses][: len(row.answers)], "no answer"
    assert len(responses) == len(row.answers), [response.status for response in responses]
    for answer, response in zip(row.answers, responses, strict=True):
        if answer.is_refusal:
            check_refusal(answer, response, bodies)
        else:
            check_echo(answer, response)


def run_rows(server: Server, rows: list[Row], jobs: list[list[bytes]], half_close: bool, width: int) -> list[str]:
    """What went wrong, a line a row."""
    methods = [row.methods for row in rows]
    found = try_exchange_many(
        server.address, jobs, half_close=half_close, timeout=30, count=0, methods=methods, width=width
    )
    bodies: dict[tuple[int, bool], bytes] = {}
    wrong = []
    for row, data in zip(rows, found, strict=True):
        try:
            check(row, data, bodies)
        except (AssertionError, BadResponse, ValueError, KeyError) as error:
            wrong.append(f"{row.name}: sent {row.data[:120]!r}: {error}")
    return wrong


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("group", GROUPS)
def test_rows(group: str, split: str, servers: Servers) -> None:
    rows = GROUPS[group]
    server = servers[rows[0].settings]
    width = 1 if "limit_spool_total" in group else 128  # what others hold at the same time counts too
    wrong: list[str] = []
    # The end of the client's side must play no part in a refusal, and must not matter to a request that is whole.
    for is_ended in (True, False):
        some = [row for row in rows if (row.is_cut or not row.is_refused) is is_ended]
        jobs = [dict(splits(row.data, EVERY_BYTE_UP_TO))[split] for row in some]
        wrong += run_rows(server, some, jobs, is_ended, width)
    assert not wrong, f"{len(wrong)} rows:\n" + "\n".join(wrong)


def test_nothing_behind_a_refusal_is_answered(servers: Servers) -> None:
    """A request that follows a refused one in the same bytes, be it smuggled or innocent, is never looked at."""
    rows = [row for row in HEAD_ROWS + BODY_ROWS if row.is_refused and not row.is_cut and not row.settings]
    jobs = [[row.data + get(target=b"/smuggled") * 2] for row in rows]
    wrong = run_rows(servers[()], rows, jobs, False, 128)
    assert not wrong, f"{len(wrong)} rows:\n" + "\n".join(wrong)


def test_rows_of_one_connection_after_another(servers: Servers) -> None:
    """Whatever was accepted before on the connection, a refused row is still refused: nothing carries over."""
    rows = [row for row in HEAD_ROWS + BODY_ROWS if row.is_refused and not row.is_cut and not row.settings]
    rows = [row for row in rows if not row.data.startswith((b"\r", b"\n", b"HEAD"))]
    first = get(b"Accept: a/b", b"Cookie: a=b", target=b"/first")
    jobs = [[first + first, row.data] for row in rows]
    answers = (Answer((200,), {"PATH_INFO": "/first"}), Answer((200,), {"PATH_INFO": "/first"}))
    doubled = [Row(row.name, row.data, answers + row.answers) for row in rows]
    wrong = run_rows(servers[()], doubled, jobs, False, 128)
    assert not wrong, f"{len(wrong)} rows:\n" + "\n".join(wrong)
