"""What the callers of `load` ask for, how an answer is checked byte for byte, and what they have seen."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import epollwsgi
from tests.process.routes import expected_content
from tests.responses import Response

# One in so many may have been sent again, and a handful in any case.
ANSWERS_PER_RETRY = 200
FEW_RETRIES = 3

# kind -> how many of a hundred requests
MIX = {"echo": 60, "posted": 15, "chunked": 12, "large": 8, "slow": 5}
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT")
SERVER = f"epollwsgi/{epollwsgi.__version__}"


@dataclass(frozen=True)
class Failure:
    """A request that failed. kind: refused, reset, closed, truncated, wrong, timeout or a name of errno."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Request:
    """What is sent and what must come back."""

    tag: str
    data: bytes
    content: bytes
    is_chunked: bool


@dataclass
class Report:
    """What a load has seen. ended: kept connections that the server ended between two requests."""

    answered: int = 0
    retried: int = 0
    ended: int = 0
    failures: list[Failure] = field(default_factory=list)
    workers: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Nothing has failed, and hardly anything had to be sent twice."""
        counts = dict(Counter(one.kind for one in self.failures))
        assert not self.failures, f"{counts} of {self.answered} answered: {self.failures[:5]}"
        assert self.answered, "nothing was answered"
        allowed = FEW_RETRIES + self.answered // ANSWERS_PER_RETRY
        assert self.retried <= allowed, f"{self.retried} of {self.answered} requests had to be sent again"


def build_request(kind: str, tag: str, style: str) -> Request:
    """A request of one kind; tag is unique to it."""
    content = b""
    path = kind
    if kind == "posted":
        path, content = "echo", f"content of {tag}, ".encode() * 300
    lines = [f"{'POST' if content else 'GET'} /{path}?{tag} HTTP/1.1", "Host: load.test"]
    if content:
        lines.append(f"Content-Length: {len(content)}")
    if style == "closing":
        lines.append("Connection: close")
    data = "\r\n".join([*lines, "", ""]).encode() + content
    return Request(tag, data, expected_content(path, tag, content), kind == "chunked")


def check_response(request: Request, response: Response) -> str:
    """What is wrong with an answer; '' if it is right to the last byte."""
    if (response.status, response.reason, response.version) != (200, "OK", "HTTP/1.1"):
        return f"{response.status} {response.reason} in {response.version}: {response.body[:200]!r}"
    names = sorted(name for name, _ in response.fields if name != "Connection")
    framing = "Transfer-Encoding" if request.is_chunked else "Content-Length"
    if names != sorted(["Date", "Server", "Content-Type", "X-Worker", "X-Version", "X-Tag", framing]):
        return f"fields {response.fields}"
    wanted = {"Server": SERVER, "Content-Type": "text/plain", "X-Tag": request.tag}
    wanted[framing] = "chunked" if request.is_chunked else str(len(request.content))
    for name, value in wanted.items():
        if response[name] != value:
            return f"{name}: {response[name]}, not {value}"
    if not DATE.fullmatch(response["Date"]):
        return f"Date: {response['Date']}"
    if response.get("Connection") not in (None, "close"):
        return f"Connection: {response.get('Connection')}"
    if response.body != request.content:
        return f"a body of {len(response.body)} bytes, not {len(request.content)}: {response.body[:200]!r}"
    return ""
