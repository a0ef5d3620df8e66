"""The command as a user meets it: real processes, their exit codes, and what they say."""

from __future__ import annotations

import http.client
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import epollwsgi
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.settings import OPTIONS
from tests.support import ROOT, Server, ServerFactory, clean_environment, wait_until

HELLO = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"


def run(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, *options, "-m", "epollwsgi", *arguments],
        cwd=cwd,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def get(server: Server, path: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.tcp_addresses[0], timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with an application hello.py and a site in pages/."""
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.html").write_text("<p>pages")
    (tmp_path / "pages" / "a.txt").write_text("a")
    return tmp_path


# --- what ends without a server -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-v", "--version"])
def test_version(tmp_path: Path, flag: str) -> None:
    done = run(flag, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"epollwsgi {epollwsgi.__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_every_option_of_the_table(tmp_path: Path, flag: str) -> None:
    done = run(flag, cwd=tmp_path, env={"COLUMNS": "200"})
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: epollwsgi [OPTIONS] [APP|DIRECTORY]\n")
    shown = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout))
    assert {flag for option in OPTIONS.values() for flag in option.flags} <= shown
    assert not {flag for foreign in GUNICORN_ONLY.values() for flag in foreign.flags} & shown
    headings = re.findall(r"^([A-Z].*):$", done.stdout, re.MULTILINE)
    assert headings[:2] == ["Start", "Sockets"]
    assert "Examples" in headings


def test_nothing_to_serve_shows_the_help(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.startswith("Usage: epollwsgi")
    assert done.stderr == "epollwsgi: nothing to serve: name an application or a directory\n"


def test_print_config_names_each_source(site: Path) -> None:
    (site / "pyproject.toml").write_text("[tool.epollwsgi]\nkeepalive = 5\n")
    done = run("--print-config", "--backlog", "10", cwd=site, env={"EPOLLWSGI_REVALIDATE": "2s"})
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^keepalive = 5 +# pyproject\.toml:2$", done.stdout, re.MULTILINE)
    assert re.search(r"^backlog = 10 +# command line$", done.stdout, re.MULTILINE)
    assert re.search(r"^revalidate = 2 +# environment EPOLLWSGI_REVALIDATE$", done.stdout, re.MULTILINE)
    assert re.search(r"^send_timeout = 60 +# default$", done.stdout, re.MULTILINE)


MISTAKES: list[tuple[list[str], int, list[str]]] = [
    (["--nonsense", "hello:app"], 2, ["--nonsense", "--help"]),
    (["hello:app", "other:app"], 2, ["other:app"]),
    (["hello:app", "--backlog"], 2, ["--backlog"]),
    (["hello app"], 2, ["'hello app'", "MODULE:ATTRIBUTE"]),
    (["--backlog", "many", "hello:app"], 1, ["command line", "backlog", "'many'", "1 to 65535"]),
    (["--header-map", "keep", "hello:app"], 1, ["header_map", "'keep'", "drop, refuse or dangerous"]),
    (["-b", "999.1:80:1", "hello:app"], 1, ["command line", "bind"]),
    (["-k", "gevent", "hello:app"], 1, ["worker_class", "gevent"]),
    (["-c", "missing.toml", "hello:app"], 1, ["missing.toml", "No such file or directory"]),
    (["--chdir", "missing", "hello:app"], 1, ["chdir", "missing", "No such file or directory"]),
    (["--tmp-upload-dir", "missing", "hello:app"], 1, ["tmp_upload_dir", "missing", "no such directory"]),
    (["--error-logfile", "missing/log", "hello:app"], 1, ["errorlog", "missing/log", "No such file or directory"]),
    (["-b", "unix:missing/s", "hello:app"], 1, ["unix:missing/s", "No such file or directory"]),
    (["--static", "/a=missing", "hello:app"], 1, ["static", "missing", "No such file or directory"]),
    (["--static", "/a=.", "hello:app"], 1, ["/a=.", "hello.py", "own module"]),
    (["--static", "/=pages", "./pages"], 2, ["--static", "./pages"]),
    (["./nowhere"], 1, ["./nowhere", "No such file or directory"]),
    (["nowhere:app"], 3, ["no module named nowhere"]),
    (["pages"], 3, ["did you mean ./pages"]),
    (["broken:app"], 3, ["Traceback", "broken.py", "RuntimeError: deep inside"]),
    (["hello:ap"], 4, ["hello has no attribute ap", "candidates found: hello:app"]),
]


@pytest.mark.parametrize(("arguments", "code", "expected"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes(site: Path, arguments: list[str], code: int, expected: list[str]) -> None:
    (site / "broken.py").write_text("def deep():\n    raise RuntimeError('deep inside')\n\ndeep()\n")
    done = run("-b", "127.0.0.1:0", *arguments, cwd=site)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("epollwsgi: ")
    assert done.stdout == ""
    for part in expected:
        assert part in done.stderr
    assert f"{os.sep}epollwsgi{os.sep}" not in done.stderr, "a frame of ours"
    if code != 3:
        assert done.stderr.count("\n") == 1


def test_port_in_use_names_the_address(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("-b", address, "hello:app", cwd=site)
    assert done.returncode == 1
    assert address in done.stderr
    assert "Address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_failed_application_leaves_no_unix_socket(site: Path) -> None:
    assert run("-b", "unix:s", "hello:nothing", cwd=site).returncode == 4
    assert not (site / "s").exists()


def test_check_config_loads_everything_and_binds_nothing(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("--check-config", "-b", address, "hello:app", cwd=site)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run("--check-config", "hello:missing", cwd=site).returncode == 4
    assert run("--check-config", "nowhere:app", cwd=site).returncode == 3


def test_source_directory_is_refused(site: Path) -> None:
    (site / ".env").touch()
    done = run(".", cwd=site)
    assert done.returncode == 1
    assert ".env" in done.stderr
    assert "--allow-source" in done.stderr


def test_gunicorn_arguments_that_are_wrong(site: Path) -> None:
    for text, expected in (("--nonsense", "--nonsense"), ("'", "quotation"), ("app:app", "options alone")):
        done = run("hello:app", cwd=site, env={"GUNICORN_CMD_ARGS": text})
        assert done.returncode == 1
        assert done.stderr.startswith("epollwsgi: environment GUNICORN_CMD_ARGS: ")
        assert expected in done.stderr


# --- what serves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_application_is_served_until_a_signal(start_server: ServerFactory, site: Path, number: int) -> None:
    server = start_server("hello:app", cwd=site)
    assert get(server) == (200, b"hello")
    banner = server.stderr_text()
    assert banner.startswith(f"epollwsgi {epollwsgi.__version__}\n")
    for part in ("hello:app", server.url, str(server.pid), f"kill {server.pid}"):
        assert part in banner
    assert "not yet honoured" not in banner
    assert server.stop(number) == 0
    assert "Traceback" not in server.stderr_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--chdir", "SITE", "hello:app"],
        ["hello:app", "--chdir", "SITE"],
        ["--pythonpath", "/nowhere,SITE", "hello"],
        ["hello:app", "--pythonpath=SITE"],
    ],
)
def test_options_stand_on_either_side(start_server: ServerFactory, site: Path, arguments: list[str]) -> None:
    server = start_server("", *(text.replace("SITE", str(site)) for text in arguments))
    assert get(server) == (200, b"hello")


def test_directory_is_served(start_server: ServerFactory, site: Path) -> None:
    server = start_server("./pages", cwd=site)
    assert get(server) == (200, b"<p>pages")
    assert get(server, "/missing")[0] == 404
    assert "/ from ./pages  (command line)" in server.stderr_text()


def test_static_mounts_beside_an_application(start_server: ServerFactory, site: Path) -> None:
    server = start_server("hello:app", "--static", "/p=pages", cwd=site)
    assert get(server, "/p/a.txt") == (200, b"a")
    assert get(server, "/p/missing") == (200, b"hello")
    assert "/p from pages  (command line)" in server.stderr_text()


def test_settings_alone_say_what_is_served(start_server: ServerFactory, site: Path) -> None:
    (site / "epollwsgi.toml").write_text('static = ["/=pages"]\n')
    server = start_server(cwd=site)
    assert get(server) == (200, b"<p>pages")
    assert "epollwsgi.toml" in server.stderr_text()
    (site / "epollwsgi.toml").write_text('wsgi_app = "hello:app"\n')
    server = start_server(cwd=site)
    assert get(server) == (200, b"hello")


def test_named_directory_takes_the_place_of_the_one_in_a_file(start_server: ServerFactory, site: Path) -> None:
    (site / "other").mkdir()
    (site / "other" / "index.html").write_text("other")
    (site / "epollwsgi.toml").write_text('static = ["/=other", "/o=other"]\n')
    server = start_server("./pages", cwd=site)
    assert get(server) == (200, b"<p>pages")
    assert get(server, "/o/") == (200, b"other")
    assert "/ from ./pages  (command line)" in server.stderr_text()
    assert "/o from other  (epollwsgi.toml:1)" in server.stderr_text()


def test_checkout_serves_pages_and_application(start_server: ServerFactory) -> None:
    server = start_server("examples.plain:application", cwd=ROOT)
    assert get(server)[1] == (ROOT / "html" / "index.html").read_bytes()
    assert "pyproject.toml [tool.epollwsgi]" in server.stderr_text()


def test_what_holds_for_a_site_alone_is_said_beside_an_application(start_server: ServerFactory, site: Path) -> None:
    words = "of no effect beside an application: spa (command line)"
    server = start_server("hello:app", "--spa", cwd=site)
    assert words in server.wait_for_log("of no effect")
    assert server.stop() == 0
    alone = start_server("./pages", "--spa", cwd=site)
    assert alone.stop() == 0
    assert words not in alone.stderr_text()


def test_what_has_no_effect_yet_is_said_in_one_line(start_server: ServerFactory, site: Path) -> None:
    server = start_server("hello:app", "--admin", "x:1", "--threads", "2", "--spew", "-R", cwd=site)
    text = server.wait_for_log("ignored")
    lines = [line for line in text.splitlines() if "not yet honoured" in line]
    assert [line.strip() for line in lines] == ['note      not yet honoured: admin ("x:1")']
    warnings = [line for line in text.splitlines() if "ignored" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(
        f"without meaning here, ignored: spew (command line): {GUNICORN_ONLY['spew'].reason}; "
        f"enable_stdio_inheritance (command line): {GUNICORN_ONLY['enable_stdio_inheritance'].reason}"
    )


def test_sync_worker_is_explained(start_server: ServerFactory, site: Path) -> None:
    server = start_server("hello:app", "-k", "sync", cwd=site)
    assert "threads = 1 (worker_class = sync, command line); more with --threads N" in server.stderr_text()
    assert "not yet honoured" not in server.stderr_text()


def test_environment_and_umask_reach_the_application(start_server: ServerFactory, site: Path) -> None:
    (site / "env.py").write_text(
        "import os\nvalue = os.environ['GREETING'] + oct(os.umask(0))\ndef app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [value.encode()]\n"
    )
    server = start_server("env:app", "-e", "GREETING=hi=", "--umask", "027", cwd=site)
    assert get(server) == (200, b"hi=0o27")


def test_gunicorn_settings_file_with_a_function_starts(start_server: ServerFactory, site: Path) -> None:
    (site / "gunicorn.conf.py").write_text(
        "bind = 'unix:never'\nkeepalive = 3\ndef ssl_context(config, make):\n    1 / 0\n"
    )
    server = start_server("hello:app", cwd=site)
    assert get(server) == (200, b"hello")
    text = server.stderr_text()
    assert "settings  gunicorn.conf.py" in text
    assert "not yet honoured" not in text, "without certfile it has no effect in gunicorn either"
    assert "gunicorn.conf.py names neither worker_class nor threads" in text
    assert not (site / "never").exists()


def test_unix_socket_is_removed_at_the_end(start_server: ServerFactory, site: Path) -> None:
    server = start_server("hello:app", bind="unix", cwd=site)
    path = Path(server.unix_path)
    assert path.is_socket()
    assert server.stop() == 0
    assert not path.exists()


def test_signal_while_the_application_is_imported(start_server: ServerFactory, site: Path) -> None:
    (site / "slow.py").write_text("import time, pathlib\npathlib.Path('begun').touch()\ntime.sleep(30)\n")
    for number in (signal.SIGTERM, signal.SIGINT):
        server = start_server("slow:app", cwd=site, wait=False)
        wait_until((site / "begun").exists, what="the import")
        assert server.stop(number) == 0
        assert [line.partition("] ")[2] for line in server.stderr_text().splitlines() if "stopping" not in line] == []
        (site / "begun").unlink()


def test_access_log_file(start_server: ServerFactory, site: Path) -> None:
    server = start_server("hello:app", "--access-logfile", "access.log", cwd=site)
    get(server, "/x?y=1")
    wait_until(lambda: (site / "access.log").read_text(), what="a line")
    line = (site / "access.log").read_text()
    assert re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "GET /x\?y=1 HTTP/1\.1" 200 5 "-" "-"\n', line)
    assert server.stdout_text() == ""


def read_terminal(fd: int, until: bytes, timeout_s: float = 15.0) -> bytes:
    """What a terminal shows, up to `until`."""
    data, end_at = b"", time.monotonic() + timeout_s
    while until not in data and time.monotonic() < end_at:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                data += os.read(fd, 65536)
            except OSError:  # the other side has ended
                break
    return data


def test_short_access_lines_on_a_terminal(site: Path) -> None:
    near, far = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "epollwsgi", "-b", "127.0.0.1:0", "hello:app"],
        cwd=site,
        env=clean_environment(),
        stdin=far,
        stdout=far,
        stderr=far,
        start_new_session=True,
    )
    os.close(far)
    try:
        shown = read_terminal(near, b"stop with")
        assert b"stop with Ctrl+C" in shown
        port = int(re.search(rb"http://127\.0\.0\.1:(\d+)", shown)[1])  # type: ignore[index]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/seen")
        connection.getresponse().read()
        connection.close()
        line = read_terminal(near, b" ms")
        assert re.search(rb"\d\d:\d\d:\d\d \x1b\[32m200\x1b\[0m GET /seen .*5 B, [\d.]+ ms", line)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(near)


PROGRAM = """
import os, signal, socket, threading, time
import epollwsgi
from hello import app

def ask_then_stop():
    for _ in range(1000):
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect("s")
                sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                print(b"".join(iter(lambda: sock.recv(4096), b""))[-5:], flush=True)
                break
        except OSError:
            time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

try:
    epollwsgi.serve(app, bnd="x")
except Exception as error:
    print(type(error).__name__, error, flush=True)
threading.Thread(target=ask_then_stop).start()
print(epollwsgi.serve(app, bind="unix:s", keepalive=5))
"""


def test_program_serves_an_object(site: Path) -> None:
    (site / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=site,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "ConfigError serve(): bnd: no such setting; did you mean bind?\nb'hello'\n0\n", done.stderr
    assert "serving   app\n" in done.stderr


def test_start_without_standard_error(site: Path) -> None:
    """A supervisor may close descriptors 0 to 2; a mistake still has its exit code, and nothing else breaks."""
    command = f"exec {sys.executable} -m epollwsgi -b 127.0.0.1:0 hello:nothing 0<&- 1>&- 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=site, env=clean_environment(), timeout=30, check=False)
    assert done.returncode == 4


def test_help_and_version_need_no_server_code(tmp_path: Path) -> None:
    """What is not needed is not imported: a start has half a second with Flask."""
    done = run("--version", cwd=tmp_path, options=["-X", "importtime"])
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "epollwsgi.cli" in loaded
    assert not {name for name in loaded if name.startswith(("epollwsgi.loop", "epollwsgi.http", "epollwsgi.process"))}
    assert not loaded & {"asyncio", "logging", "email", "http.client", "unittest", "ipaddress", "difflib", "tomllib"}
