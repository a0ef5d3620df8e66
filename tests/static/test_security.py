"""Attacks on static files over real sockets: paths that lead out, links that change meanwhile, forged fields.

Every test runs twice, opened by the kernel and by the walk that takes its place where a sandbox refuses openat2.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from epollwsgi.static.beneath import probe_openat2
from tests.connections import Client, exchange_many
from tests.responses import Response, parse_responses
from tests.static.support import write
from tests.support import ROOT, Server, ServerFactory, wait_until

SECRET = b"what nobody may see"
INSIDE = b"for everybody"

FILES = {
    "site/a.txt": INSIDE,
    "site/index.html": INSIDE,
    "site/404.html": b"not found",
    "site/d/index.html": INSIDE,
    "site/d/e/x.txt": INSIDE,
    "site/evil.example/index.html": INSIDE,
    "site/\\evil.example/index.html": INSIDE,
    "site/ /evil.example/index.html": INSIDE,
    "site/\t/evil.example/index.html": INSIDE,
    "site/@evil.example/index.html": INSIDE,
    "site/crlf\r\nX-Forged: yes/index.html": INSIDE,
    "site/.env": SECRET,
    "site/_headers": b"/name/:name\n  X-Known: yes\n/d/*\n  X-Known: yes\n",
    "site/_redirects": b"""\
/go/* /:splat 302
/one/:name /:name/there 302
/far/* https://good.example/:splat 302
/host/* https://:splat/ 302
/port/* https://good.example:splat 302
/under/* //:splat 302
""",
    "site-secret/secret.txt": SECRET,
    "site.txt": SECRET,
    "outside/secret.txt": SECRET,
    "outside/x.txt": SECRET,
    "outside/index.html": SECRET,
    "outside/404.html": SECRET,
}

WRAPPER = """\
#!{python}
import os, sys
sys.path.insert(0, {root!r})
from tests.static.sandboxed import refuse_openat2
if not refuse_openat2({error}):
    sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
WAYS = ("kernel", "walk")


def python_of(way: str, directory: Path) -> str:
    """What to run a server with: Python, or a script that becomes Python in a sandbox without openat2."""
    if way == "kernel":
        if probe_openat2():
            pytest.skip("this kernel or sandbox refuses openat2")
        return sys.executable
    script = directory / "python-without-openat2"
    script.write_text(WRAPPER.format(python=sys.executable, root=str(ROOT), error=38))
    script.chmod(stat.S_IRWXU)
    done = subprocess.run(
        [script, "-c", "from epollwsgi.static.beneath import probe_openat2 as p; print(p())"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("seccomp is not to be had")
    assert done.stdout == "38\n"
    return str(script)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("security")
    for name, content in FILES.items():
        write(base / name, content)
    return base


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return python_of(request.param, tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def alone(start_module_server: ServerFactory, base: Path, way: str) -> Server:
    return start_module_server(str(base / "site"), "--allow-source", python=way)


@pytest.fixture(scope="module")
def beside(start_module_server: ServerFactory, base: Path, way: str) -> Server:
    return start_module_server("tests.apps.shapes:app", "--static", f"/={base / 'site'}", python=way)


def ask_all(server: Server, targets: Sequence[str], *lines: str) -> list[Response]:
    """The responses to all of them, each on a connection of its own."""
    extra = "".join(f"{line}\r\n" for line in ("Host: site.example", "Connection: close", *lines, ""))
    jobs = [[f"GET {target} HTTP/1.1\r\n{extra}".encode("latin-1")] for target in targets]
    found = []
    for data in exchange_many(server.address, jobs, count=0, timeout=60):
        (response,) = parse_responses(data)
        found.append(response)
    return found


# --- paths that lead out --------------------------------------------------------------------------------------------

UPS = (
    "..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "%25%32%65%25%32%65", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae%f0%80%80%ae", "%u002e%u002e", "..%00", "%00..", "..;", "..%20", "...", "....", ".%00.", "..%0a",
    "%ef%bc%8e%ef%bc%8e", "\xc0\xae\xc0\xae",
)  # fmt: skip
SLASHES = (
    "/",
    "//",
    "/./",
    "%2f",
    "%252f",
    "\\",
    "%5c",
    "%255c",
    "\\/",
    "%c0%af",
    "%e0%80%af",
    "%ef%bc%8f",
    "\xc0\xaf",
)
STARTS = ("/", "//", "/d/", "/d/e/", "/none/", "/%2e/", "/a.txt/")
ENDS = ("outside{}secret.txt", "site-secret{}secret.txt", "site.txt")


def traversals() -> Iterator[str]:
    """Each way up with each slash, from each start, as far up as it takes and a little further."""
    for start, up, slash, end in itertools.product(STARTS, UPS, SLASHES, ENDS):
        depth = start.count("/") + 1
        yield start + (up + slash) * depth + end.format(slash)
    for up, slash in itertools.product(UPS, SLASHES):
        yield "/" + (up + slash) * 12 + f"etc{slash}passwd"


def absolutes(base: Path) -> Iterator[str]:
    """The path of a file from the root of the file system, in a target."""
    path = f"{base}/outside/secret.txt"
    starts = ("", "/", "//", "/./", "/%2f", "/%5c", "\\", "/file://", "/d/", "http://a/", "/C:", "/proc/self/root")
    for start in starts:
        yield start + path
        yield start + path.replace("/", "%2f")
        yield start + path.replace("/", "\\")


def is_refused(response: Response) -> bool:
    return response.status in (400, 404) and SECRET not in response.body and b"root:" not in response.body


def test_no_spelling_leads_out(alone: Server, base: Path) -> None:
    """Refused as no path, or not found; never a file, never an error of the server's."""
    targets = [*traversals(), *absolutes(base)]
    assert len(targets) > 5000
    with Client(alone.address, timeout_s=60) as client:
        for target in targets:
            # A target that is no target ends the connection: those are sent alone below.
            if not target.isascii() or not target.startswith("/"):
                continue
            request = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode("ascii")
            response = client.request(request)
            assert is_refused(response), (target, response)
        assert client.request(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").body == INSIDE
    rest = [target for target in targets if not target.isascii() or not target.startswith("/")]
    for target, response in zip(rest, ask_all(alone, rest), strict=True):
        assert is_refused(response), (target, response)
    assert "Traceback" not in alone.stderr_text()


def test_no_spelling_leads_out_beside_an_application(beside: Server, base: Path) -> None:
    """What is no file is the application's, whose answers hold no file."""
    targets = [target for target in traversals() if target.isascii()][::7]
    with Client(beside.address, timeout_s=60) as client:
        for target in targets:
            response = client.request(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode("ascii"))
            assert SECRET not in response.body
            assert b"root:" not in response.body
            assert "Last-Modified" not in response, target


def test_the_walk_is_what_it_says(alone: Server, way: str) -> None:
    """The second half of these tests would prove nothing if both ran the same code."""
    assert ("openat2 is not available" in alone.stderr_text()) == (way != sys.executable)


# --- redirects and forged fields ------------------------------------------------------------------------------------

EVIL = "evil.example"
HOPS = (
    f"//{EVIL}", f"///{EVIL}", f"/.//{EVIL}", f"/d/..//{EVIL}", f"/%2f{EVIL}", f"/%2F%2F{EVIL}", f"/\\{EVIL}",
    f"/%5c{EVIL}", f"/%5C%5C{EVIL}", f"/\\/{EVIL}", f"//\\{EVIL}", f"/%09/{EVIL}", f"/%20/{EVIL}", f"/%0d%0a/{EVIL}",
    f"/@{EVIL}", f"/%40{EVIL}", f"/;//{EVIL}", f"//{EVIL}/%2e%2e", f"//{EVIL}/..", f"/{EVIL}", f"http:///{EVIL}",
    f"http://site.example//{EVIL}", "/crlf%0d%0aX-Forged:%20yes", "/crlf%0D%0AX-Forged%3A%20yes", f"/d%3f//{EVIL}",
    "/d?%0d%0aX-Forged:%20yes", f"/d?x=//{EVIL}", f"/d?x=\\\\{EVIL}", "/d?%5c%5c", f"/d%23//{EVIL}",
)  # fmt: skip
RULES = ("/go/", "/go", "/one/", "/far/", "/far", "/host/", "/port/", "/under/")
BEHIND = (
    EVIL, f"/{EVIL}", f"//{EVIL}", f"\\{EVIL}", f"\\\\{EVIL}", f"/\\{EVIL}", f"%2f{EVIL}", f"%5c{EVIL}",
    f"%5c%5c{EVIL}", f"%09/{EVIL}", f"/%09/{EVIL}", f"%0a/{EVIL}", "%0d%0aX-Forged:%20yes", f"%20//{EVIL}", f"@{EVIL}",
    f":@{EVIL}", f":80@{EVIL}", f".{EVIL}", f"..//{EVIL}", f"./..//{EVIL}", f"https://{EVIL}", f"https:{EVIL}",
    f"https:%2f%2f{EVIL}", "javascript:alert(1)", f"%00//{EVIL}", f"?//{EVIL}", f";//{EVIL}", f"%e2%80%ae{EVIL}",
    "%ff", "",
)  # fmt: skip


def leads_to(location: str) -> str:
    """The host that a browser goes to: it takes a backslash for a slash, and leaves out tabs and line breaks."""
    seen = re.sub(r"[\t\r\n]", "", location).strip(" ").replace("\\", "/")
    return urlsplit(urljoin("http://site.example/x/y", re.sub(r"^(https?:)/*", r"\1//", seen))).netloc


FIELD_NAMES = {
    "accept-ranges", "cache-control", "connection", "content-length", "content-type", "date", "etag", "last-modified",
    "location", "server", "vary", "x-content-type-options", "x-known",
}  # fmt: skip


def test_no_redirect_leads_elsewhere(alone: Server, beside: Server) -> None:
    """But for rules that name another host, and then to that host only; no byte of a path becomes a field."""
    targets = [*HOPS, *(rule + behind for rule in RULES for behind in BEHIND)]
    redirect_count = 0
    for server in (alone, beside):
        for target, response in zip(targets, ask_all(server, targets), strict=True):
            assert response.status < 500, target
            if server is alone:
                assert {name.lower() for name, _ in response.fields} <= FIELD_NAMES, (target, response.fields)
            assert "X-Forged" not in response
            for location in response.get_all("Location"):
                redirect_count += 1
                assert re.fullmatch(r"[!-~]+", location), (target, location)
                allowed = {"site.example", "good.example"} if target.startswith("/far") else {"site.example"}
                assert leads_to(location) in allowed, (target, location)
    assert redirect_count > 50


def test_a_host_in_the_request_is_never_used(alone: Server) -> None:
    targets = ["/d", "/go/x", "http://evil.example/d"]
    for line in ("Host: evil.example", "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example"):
        with Client(alone.address) as client:
            for target in targets:
                host = "" if line.startswith("Host") else "Host: a\r\n"
                response = client.request(f"GET {target} HTTP/1.1\r\n{host}{line}\r\n\r\n".encode())
                assert response.status in (301, 302)
                assert response["Location"].startswith("/")


# --- links that change meanwhile ------------------------------------------------------------------------------------

# Exchanges pairs of names for as long as its input is open, then says how often.
SWAPPER = """\
import ctypes, os, select, sys
renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
pairs = [(os.fsencode(a), os.fsencode(b)) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]
count = 0
while not select.select([0], [], [], 0)[0]:
    for a, b in pairs:
        if renameat2(-100, a, -100, b, 2):
            raise OSError(ctypes.get_errno(), "renameat2")
    count += 1
print(count)
"""
REQUEST_COUNT = 10_000
BATCH = 50
# Names that are a directory or file of the site at one moment and a link out of it at the next, or the other way round.
RACED = ("/one/x.txt", "/two/x.txt", "/one/", "/two/", "/file.txt", "/link.txt", "/one/none", "/two/none", "/p.js")
ANSWERS = {(200, INSIDE), (404, b"not found"), (404, b"inside is no such page")}


@pytest.mark.parametrize("revalidate", ["0", "1"])
def test_a_link_out_of_the_site_that_comes_and_goes(
    tmp_path: Path, server: ServerFactory, way: str, revalidate: str
) -> None:
    """Whatever the moment: what lies outside is never opened."""
    outside, site = tmp_path / "outside", tmp_path / "site"
    for name in ("x.txt", "index.html", "404.html", "file.txt", "p.js.gz"):
        write(outside / name, SECRET)
    for name in ("one/x.txt", "one/index.html", "file.txt", "p.js"):
        write(site / name, INSIDE)
    write(site / "one" / "404.html", b"inside is no such page")
    write(site / "404.html", b"not found")
    write(site / "p.js.other", SECRET)
    (site / "two").symlink_to("../outside")
    (site / "link.txt").symlink_to("../outside/file.txt")
    (site / "p.js.gz").symlink_to("../outside/p.js.gz")
    running = server(str(site), "--revalidate", revalidate, python=way)
    pairs = [("one", "two"), ("file.txt", "link.txt"), ("p.js.gz", "p.js.other")]
    names = [str(site / name) for pair in pairs for name in pair]
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    seen: Counter[tuple[int, bytes]] = Counter()
    batch = list(itertools.islice(itertools.cycle(RACED), BATCH))
    data = b"".join(
        f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n".encode("ascii") for path in batch
    )
    try:
        with Client(running.address, timeout_s=60) as client:

            def ask() -> bool:
                client.send(data)
                for _ in batch:
                    response = client.read_response()
                    seen[response.status, response.body] += 1
                return {(200, INSIDE), (404, b"not found")} <= set(seen)

            for _ in range(REQUEST_COUNT // BATCH):
                ask()
            wait_until(ask, 30, f"both sides of a name, so far {seen}")
        assert swapper.stdin is not None
        out, err = swapper.communicate(b"", timeout=30)
    finally:
        swapper.kill()
        swapper.wait()
    assert (swapper.returncode, err) == (0, b"")
    assert int(out) > 10
    assert set(seen) <= ANSWERS, seen
    assert sum(seen.values()) >= REQUEST_COUNT
    assert "Traceback" not in running.stderr_text()


def test_a_link_to_a_terminal_or_device_is_not_opened(tmp_path: Path, server: ServerFactory, way: str) -> None:
    """/dev/zero has no end, and a terminal would become the server's own."""
    write(tmp_path / "a.txt", INSIDE)
    for name, target in (
        ("zero", "/dev/zero"),
        ("tty", "/dev/tty"),
        ("fd", "/proc/self/fd/0"),
        ("mem", "/proc/self/mem"),
    ):
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "fifo")
    running = server(str(tmp_path), python=way)
    for response in ask_all(running, ["/zero", "/tty", "/fd", "/mem", "/fifo"] * 3):
        assert response.status == 404
    (response,) = ask_all(running, ["/a.txt"])
    assert response.body == INSIDE
