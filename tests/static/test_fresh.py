"""static.fresh: responses that a connection finds by itself, by path and by the fields that matter; multipart."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

from epollwsgi.static.fresh import FIELDS, MAX_OPEN, MAX_VIEWS, MAX_VIEWS_A_SECOND, Fresh
from tests.connections import Client, exchange
from tests.responses import Response, parse_responses
from tests.static.support import A_TXT, BIG, COMMON, Ticking, content_of, fields_of, open_descriptors, write
from tests.support import ServerFactory

CONDITIONAL: list[tuple[dict[str, str], int]] = [
    ({"HTTP_IF_NONE_MATCH": "*"}, 304),
    ({"HTTP_RANGE": "bytes=0-9"}, 206),
    ({"HTTP_RANGE": "bytes=0-9", "HTTP_ACCEPT_ENCODING": "br"}, 206),
    ({"HTTP_RANGE": "bytes=0-9,500-509"}, 206),
    ({"HTTP_IF_MODIFIED_SINCE": "Fri, 31 Dec 9999 23:59:59 GMT"}, 304),
]


@pytest.mark.parametrize(("fields", "status"), [({}, 200), ({"HTTP_ACCEPT_ENCODING": "br"}, 200), *CONDITIONAL])
def test_a_view_holds_what_was_answered(tmp_path: Path, fields: dict[str, str], status: int) -> None:
    write(tmp_path / "a.txt", A_TXT)
    write(tmp_path / "a.txt.br", A_TXT[::-1])
    site = Ticking(("/", tmp_path))
    view = site.handler.fresh.view({"HTTP_HOST": "a", **fields})
    assert site.handler.fresh.view(fields) is view
    assert dict(view) == {}
    reply = site.get("/a.txt", **fields)
    assert reply.status == status
    assert view["/a.txt"] == reply.head + COMMON + b"\r\n" + content_of(reply)
    assert site.handler.fresh.plain == {}  # it varies
    others = [site.handler.fresh.view({"HTTP_ACCEPT_ENCODING": "zstd"}), site.handler.fresh.view({"HTTP_RANGE": "x"})]
    assert others == [{}, {}]
    site.tick()
    assert (dict(view), view.is_dead) == ({}, False)


def test_what_no_view_holds(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", A_TXT)
    write(tmp_path / "d" / "index.html", b"d")
    site = Ticking(("/", tmp_path))
    plain = site.handler.fresh.view({})
    failing = site.handler.fresh.view({"HTTP_IF_MATCH": '"x"'})
    outside = site.handler.fresh.view({"HTTP_RANGE": "bytes=5000-"})
    for path in ("/nothing", "/d", "/%zz", "/" + "./" * 200 + "a.txt"):
        site.get(path)
    site.get("/a.txt", "HEAD")
    site.get("/a.txt", "POST")
    assert site.get("/a.txt", HTTP_IF_MATCH='"x"').status == 412
    assert site.get("/a.txt", HTTP_RANGE="bytes=5000-").status == 416
    assert (dict(plain), dict(failing), dict(outside)) == ({}, {}, {})
    fast = Ticking(("/", tmp_path), revalidate=0)
    view = fast.handler.fresh.view({})
    fast.get("/a.txt")
    assert dict(view) == {}


def test_every_field_that_the_answer_depends_on_is_part_of_the_view(tmp_path: Path) -> None:
    fresh = Fresh()
    views = {id(fresh.view({name: "x"})) for name in FIELDS} | {id(fresh.view({}))}
    assert len(views) == len(FIELDS)  # If-Range means nothing without Range
    both = {"HTTP_RANGE": "bytes=0-0", "HTTP_IF_RANGE": "x"}
    assert fresh.view(both) is not fresh.view({"HTTP_RANGE": "bytes=0-0"})
    assert fresh.view({"HTTP_COOKIE": "x"}) is fresh.view({})


def test_views_are_bounded_and_say_when_they_are_dead() -> None:
    fresh = Fresh()
    first = fresh.view({"HTTP_RANGE": "first"})
    for number in range(MAX_VIEWS_A_SECOND + 10):
        view = fresh.view({"HTTP_RANGE": str(number)})
    assert [first.is_dead, view.is_dead] == [False, True]
    fresh.begin(COMMON)
    assert first.is_dead
    assert not fresh.view({"HTTP_RANGE": "first"}).is_dead
    for number in range(MAX_VIEWS - 1):
        fresh.view({"HTTP_RANGE": str(number)})
    second = fresh.view({"HTTP_RANGE": "first"})
    fresh.begin(COMMON)
    assert not second.is_dead  # so many live on


def test_large_files_are_held_open_within_a_bound(tmp_path: Path) -> None:
    for number in range(MAX_OPEN + 10):
        write(tmp_path / f"{number}.bin", BIG)
    site = Ticking(("/", tmp_path), max_descriptors=8)
    gc.collect()
    before = open_descriptors()
    view = site.handler.fresh.view({})
    for _ in range(2):
        for number in range(MAX_OPEN + 10):
            site.get(f"/{number}.bin")
    assert 0 < len(view.files) <= MAX_OPEN
    assert open_descriptors() <= before + MAX_OPEN + 8
    site.tick()
    assert not view.files
    assert open_descriptors() <= before + 8


# --- live -----------------------------------------------------------------------------------------------------------


def test_repeated_requests_of_one_connection(server: ServerFactory, tmp_path: Path) -> None:
    """Each sort of fields again and again, in turns: what is remembered of one must not answer another."""
    write(tmp_path / "a.txt", A_TXT)
    write(tmp_path / "a.txt.br", A_TXT[::-1])
    write(tmp_path / "big.bin", BIG)
    running = server(str(tmp_path))
    sorts: list[tuple[str, int, bytes]] = [
        ("", 200, A_TXT),
        ("Accept-Encoding: br\r\n", 200, A_TXT[::-1]),
        ("Accept-Encoding: identity\r\n", 200, A_TXT),
        ("If-None-Match: *\r\n", 304, b""),
        ("Range: bytes=5-9\r\n", 206, A_TXT[5:10]),
        ("Range: bytes=5-9\r\nAccept-Encoding: br\r\n", 206, A_TXT[::-1][5:10]),
        ("Range: bytes=5000-\r\n", 416, b"416 Range Not Satisfiable\n"),
        ('If-Match: "x"\r\n', 412, b"412 Precondition Failed\n"),
    ]
    with Client(running.address) as client:
        for _ in range(3):
            for lines, status, body in sorts:
                for method in ("GET", "GET", "GET", "HEAD", "GET"):
                    request = f"{method} /a.txt HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode()
                    response = client.request(request, method)
                    if method == "GET":
                        assert (response.status, response.body) == (status, body)
                    else:
                        assert response.status == (200 if status in (206, 416) else status)
                    big = client.request(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert big.body == BIG
    close = b"GET /big.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    (last,) = parse_responses(exchange(running.address, [close], count=0))
    assert last.body == BIG
    assert "Traceback" not in running.stderr_text()


def test_access_lines_of_prebuilt_responses(server: ServerFactory, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", A_TXT)
    write(tmp_path / "big.bin", BIG)
    running = server(str(tmp_path), "--access-logfile", "-")
    with Client(running.address) as client:
        for _ in range(4):
            client.request(b"GET /a.txt HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n")
        for _ in range(4):
            client.request(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
    assert running.stop() == 0
    lines = running.stdout_text().splitlines()
    assert sum('"GET /a.txt HTTP/1.1" 304 ' in line for line in lines) == 4
    assert sum(f'"GET /big.bin HTTP/1.1" 200 {len(BIG)} ' in line for line in lines) == 4


def parts_of(response: Response) -> list[tuple[str, str, bytes]]:
    """Content-Type, Content-Range and content of each part, read strictly. RFC 2046 section 5.1.1."""
    match = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{32})", response["Content-Type"])
    assert match is not None
    mark = b"--" + match[1].encode()
    first, *middle, last = re.split(rb"(?:\A|\r\n)" + re.escape(mark), response.body)
    assert (first, last) == (b"", b"--\r\n")
    parts = []
    for part in middle:
        head, _, content = part.partition(b"\r\n\r\n")
        empty, *lines = head.decode().split("\r\n")
        assert empty == ""
        fields = dict(line.split(": ", 1) for line in lines)
        assert set(fields) == {"Content-Type", "Content-Range"}
        parts.append((fields["Content-Type"], fields["Content-Range"], content))
    return parts


@pytest.mark.parametrize(("name", "content"), [("a.txt", A_TXT), ("big.txt", BIG)])
def test_several_ranges(server: ServerFactory, tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path / name, content)
    running = server(str(tmp_path))
    size = len(content)
    boundaries = set()
    with Client(running.address) as client:
        etag = client.request(f"HEAD /{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "HEAD")["ETag"]
        for ranges in (
            [(0, 0), (size - 1, size - 1)],
            [(900, 999), (0, 9), (300, 499)],
            [(0, size // 3), (size // 2, size - 1)],
        ):
            text = ",".join(f"{first}-{last}" for first, last in ranges)
            for _ in range(3):
                response = client.request(
                    f"GET /{name} HTTP/1.1\r\nHost: a\r\nRange: bytes={text}\r\nIf-Range: {etag}\r\n\r\n".encode()
                )
                assert response.status == 206
                assert "Content-Range" not in response
                assert response["ETag"] == etag
                assert response["Content-Length"] == str(len(response.body))
                boundaries.add(response["Content-Type"])
                assert parts_of(response) == [
                    ("text/plain; charset=utf-8", f"bytes {first}-{last}/{size}", content[first : last + 1])
                    for first, last in ranges
                ]
    assert len(boundaries) > 3


def test_the_boundary_cannot_be_foreseen(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", A_TXT)
    site = Ticking(("/", tmp_path))
    seen = {fields_of(site.get("/a.txt", HTTP_RANGE="bytes=0-0,900-900"))["Content-Type"] for _ in range(50)}
    assert len(seen) == 50
