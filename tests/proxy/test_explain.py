"""`epollwsgi explain` says what the fields of a proxy would do, whoever will send them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.static.tools import call_tool

CASES = [
    ((), "X-Forwarded-Proto: https", "wsgi.url_scheme = https, SERVER_PORT = 443 (forwarded_fields = proto)"),
    (("--forwarded-fields=for",), "X-Forwarded-For: 203.0.113.9", "REMOTE_ADDR = 203.0.113.9 (forwarded_fields = for)"),
    (("--forwarded-fields=for",), "X-Forwarded-For: unknown", "change nothing (forwarded_fields = for)"),
    (("--forwarded-allow-ips=10.0.0.0/8",), "X-Forwarded-Proto: http", "in forwarded_allow_ips = 10.0.0.0/8 the"),
    (("--forwarded-allow-ips=",), "X-Forwarded-Proto: https", "Nobody is in forwarded_allow_ips"),
    (("--forwarded-fields=forwarded",), 'Forwarded: for="', "it is refused with 400: not a Forwarded field"),
]


@pytest.mark.parametrize(("options", "field", "expected"), CASES, ids=lambda value: str(value))
def test_explained(
    options: tuple[str, ...],
    field: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.txt").write_text("content", "utf-8")
    arguments = ("explain", "GET", "/a.txt", "-H", field, *options, "./site")
    code, out, err = call_tool(monkeypatch, capsys, *arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert expected in out
    assert "200 OK" in out


def test_a_field_that_no_proxy_sends_is_not_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site").mkdir()
    arguments = ("explain", "GET", "/", "-H", "X-Forwarded-For: 203.0.113.9", "./site")
    code, out, _ = call_tool(monkeypatch, capsys, *arguments, cwd=tmp_path)
    assert code == 0
    assert "forwarded" not in out


def test_the_host_of_an_absolute_target_is_the_one_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site").mkdir()
    field = ("-H", "X-Forwarded-Port: 99", "--forwarded-fields=port")
    code, out, _ = call_tool(monkeypatch, capsys, "explain", "GET", "http://t/a", *field, "./site", cwd=tmp_path)
    assert code == 0
    assert "HTTP_HOST = t:99" in out
