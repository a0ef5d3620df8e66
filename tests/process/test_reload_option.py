"""`--reload` from the outside: an author saves, and what is served changes; broken code is a page until it is mended.

What is written after the server has started has another size or another inode than before: no test waits for a clock.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.browser import Browser, Tab
from tests.process.fleet import write_whole
from tests.process.procfs import is_alive
from tests.support import Client, Response, Server, ServerFactory, wait_until

WAIT_S = 40.0
MARK = "Epollwsgi-Broken"

APP = """\
import os, time
import part
def app(environ, start_response):
    content = f"{{part.VALUE}} {version}".encode()
    if environ["PATH_INFO"] == "/hold":
        open("held", "w").close()
        for _ in range(3000):
            if os.path.exists("released"):
                break
            time.sleep(0.01)
    start_response("200 OK", [("Content-Length", str(len(content))), ("X-Worker", str(os.getpid()))])
    return [content]
"""


class Site:
    """A server with --reload, and the code that it serves."""

    def __init__(self, start_server: ServerFactory, directory: Path) -> None:
        self.start_server = start_server
        self.directory = directory
        self.server: Server
        self.write("part", "VALUE = 'a'\n")
        self.write("site_app", APP.format(version=1))

    def write(self, module: str, text: str) -> None:
        write_whole(self.directory / f"{module}.py", text)

    def start(self, *options: str, target: str = "site_app:app") -> Site:
        self.server = self.start_server(target, "--reload", *options, cwd=self.directory)
        return self

    def client(self) -> Client:
        return Client(self.server.address, timeout_s=WAIT_S)

    def ask(self, method: str = "GET", path: str = "/") -> Response:
        with self.client() as client:
            return client.request(f"{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())

    def wait_for_content(self, content: str) -> None:
        wait_until(lambda: self.ask().body == content.encode(), WAIT_S, f"{content!r}\n{self.server.stderr_text()}")

    def wait_for_failure(self, words: str) -> Response:
        """The page that shows these words."""

        def found() -> Response | None:
            answer = self.ask()
            return answer if MARK in answer and words in answer.body.decode() else None

        page: Response = wait_until(found, WAIT_S, f"{words!r} on a page\n{self.server.stderr_text()}")
        return page


@pytest.fixture
def site(start_server: ServerFactory, tmp_path: Path) -> Site:
    return Site(start_server, tmp_path)


@pytest.mark.parametrize("engine", ["auto", "inotify", "poll"])
def test_what_is_saved_is_served(site: Site, engine: str) -> None:
    site.start("--reload-engine", engine)
    site.wait_for_content("a 1")
    site.write("site_app", APP.format(version=2))
    site.wait_for_content("a 2")
    site.write("part", "VALUE = 'b'\n")
    site.wait_for_content("b 2")
    log = site.server.stderr_text()
    assert f"{site.directory}/site_app.py has changed" in log
    assert f"{site.directory}/part.py has changed" in log
    assert site.server.is_running()
    assert site.server.stop() == 0


def test_an_application_that_was_preloaded_is_loaded_again(site: Site) -> None:
    site.start("--preload")
    site.wait_for_content("a 1")
    site.write("part", "VALUE = 'b'\n")
    site.wait_for_content("b 1")
    site.write("part", "VALUE = \n")
    site.wait_for_failure("SyntaxError")
    site.write("part", "VALUE = 'c'\n")
    site.wait_for_content("c 1")
    assert site.server.stop() == 0


def test_a_static_site_needs_no_watch(site: Site) -> None:
    public = site.directory / "public"
    public.mkdir()
    (public / "index.html").write_text("first")
    site.start(target="./public")
    assert site.ask().body == b"first"
    assert site.server.stop() == 0


def test_without_reload_nothing_is_watched(site: Site) -> None:
    """Until HUP tells the server, which then is what the next content is seen by."""
    site.server = site.start_server("site_app:app", cwd=site.directory)
    worker = site.ask()["X-Worker"]
    threads = Path(f"/proc/{worker}/task")
    names = {(entry / "comm").read_text().strip() for entry in threads.iterdir()}
    assert not any("reload" in name for name in names)
    site.write("part", "VALUE = 'b'\n")
    assert site.ask()["X-Worker"] == worker
    site.server.send_signal(signal.SIGHUP)
    site.wait_for_content("b 1")
    assert "has changed" not in site.server.stderr_text()


def test_every_worker_has_the_new_code(site: Site) -> None:
    """All three tell of the change; it is reloaded once."""
    site.start("-w", "3")
    site.write("part", "VALUE = 'b'\n")
    site.wait_for_content("b 1")
    for _ in range(30):
        assert site.ask().body == b"b 1"
    site.server.stop()
    assert site.server.stderr_text().count("reloading\n") == 1


def test_clients_that_keep_their_connection_see_the_new_code(site: Site) -> None:
    """The old worker answers what comes on it and closes it; whoever connects anew meets the new code."""
    site.start()
    contents: list[bytes] = []

    def one_connection() -> bool:
        with site.client() as client:
            for _ in range(1000):
                try:
                    answer = client.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                except (ConnectionError, AssertionError):
                    assert not client.buffer, "an answer was cut"
                    return contents[-1] == b"b 1"
                contents.append(answer.body)
                if len(contents) == 3:
                    site.write("part", "VALUE = 'b'\n")
                if "close" in answer.tokens or answer.body == b"b 1":
                    return answer.body == b"b 1"
        return False

    wait_until(one_connection, WAIT_S, f"the new code {site.server.stderr_text()}")
    assert set(contents) == {b"a 1", b"b 1"}
    assert contents == sorted(contents), "the old code came back"


def test_a_request_under_way_is_finished_by_the_old_code(site: Site) -> None:
    site.start()
    with site.client() as client:
        client.send(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until((site.directory / "held").exists, WAIT_S, "the request in the application")
        site.write("part", "VALUE = 'b'\n")
        site.wait_for_content("b 1")
        (site.directory / "released").touch()
        answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"a 1")


BROKEN = {
    "syntax": ("def app(:\n", "SyntaxError"),
    "raise": ("import part\nraise RuntimeError('broken <on> purpose')\n", "RuntimeError: broken &lt;on&gt; purpose"),
    "import": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "attribute": ("def other(environ, start_response):\n    return []\n", "has no attribute app"),
    "exit": ("raise SystemExit(7)\n", "SystemExit: 7"),
}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=list(BROKEN))
def test_broken_code_is_a_page_until_it_is_mended(site: Site, text: str, words: str) -> None:
    site.start()
    site.write("site_app", text)
    page = site.wait_for_failure(words)
    assert page.status == 500
    assert page["Content-Type"] == "text/html; charset=utf-8"
    assert page["Cache-Control"] == "no-store"
    assert site.ask("POST", "/any/path?x=1").status == 500
    head = site.ask("HEAD")
    assert (head[MARK], head["Content-Length"]) == (page[MARK], page["Content-Length"])
    log = site.server.stderr_text()
    assert words.replace("&lt;", "<").replace("&gt;", ">") in log, "the terminal shows it as well"
    site.write("site_app", APP.format(version=2))
    site.wait_for_content("a 2")
    assert MARK not in site.ask()
    assert site.server.stop() == 0


def test_the_terminal_shows_the_traceback_of_broken_code(site: Site) -> None:
    site.start()
    site.write("part", "def value(:\n    pass\n")
    site.wait_for_failure("SyntaxError")
    log = site.server.stderr_text()
    assert f'File "{site.directory}/site_app.py", line 2' in log
    assert f'File "{site.directory}/part.py", line 1' in log
    assert "epollwsgi/importer.py" not in log


def test_another_failure_is_another_page(site: Site) -> None:
    site.start()
    site.write("site_app", "raise RuntimeError('first')\n")
    first = site.wait_for_failure("first")
    site.write("site_app", "raise RuntimeError('second')\n")
    second = site.wait_for_failure("second")
    assert first[MARK] != second[MARK]


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["loaded", "preloaded"])
def test_a_server_starts_with_broken_code(site: Site, options: tuple[str, ...]) -> None:
    """What is missing is made, then mended: --reload waits for its author."""
    site.write("site_app", "import helpers\nfrom helpers import app\n")
    site.start(*options)
    site.wait_for_failure("helpers")
    site.write("helpers", "app = 1 +\n")
    site.wait_for_failure("SyntaxError")
    site.write("helpers", APP.format(version=3))
    site.wait_for_content("a 3")


def test_broken_code_is_a_page_where_a_path_must_answer(site: Site) -> None:
    """The page answers ready_path with 500, and is served nevertheless."""
    site.start("--ready-path", "/health")
    site.write("site_app", "raise RuntimeError('first')\n")
    site.wait_for_failure("first")
    site.write("site_app", APP.format(version=2))
    site.wait_for_content("a 2")
    assert "ready_path" not in site.server.stderr_text()


HEALTH = "    if environ['PATH_INFO'] == '/health':\n        {text}\n"
APP_START = "def app(environ, start_response):\n"
UNREADY = {  # files at the start, words of the page, files that mend it
    "answer": (
        {"site_app": "import os, time, part\n" + APP_START + "    start_response('500 No', [])\n    return []\n"},
        "ready_path = &#x27;/health&#x27; was answered with 500",
        {"site_app": APP.format(version=2)},
    ),
    "raise": (
        {"site_app": APP.format(version=2).replace(APP_START, APP_START + HEALTH.format(text="import helpers"))},
        "ModuleNotFoundError: No module named &#x27;helpers&#x27;",
        {"helpers": ""},
    ),
    "fork": (
        {
            "site_app": APP.format(version=2),
            "gunicorn.conf": "def post_fork(server, worker):\n    raise OSError('fork')\n",
        },
        "OSError: fork",
        {"gunicorn.conf": "workers = 1\n"},
    ),
    "hook": (
        {
            "site_app": APP.format(version=2),
            "gunicorn.conf": "def post_worker_init(worker):\n    raise OSError('hook')\n",
        },
        "OSError: hook",
        {"gunicorn.conf": "def post_worker_init(worker):\n    pass\n"},
    ),
}


@pytest.mark.parametrize("kind", UNREADY)
def test_code_that_is_not_ready_is_a_page_until_it_is_mended(site: Site, kind: str) -> None:
    """From the start on; told once, and tried again when a file has changed."""
    files, words, mended = UNREADY[kind]
    for name, text in files.items():
        site.write(name, text)
    site.start("--ready-path", "/health")
    page = site.wait_for_failure(words)
    assert page.status == 500
    assert "The application is not ready" in page.body.decode()
    assert "epollwsgi/process" not in page.body.decode(), "frames of the server"
    assert (site.ask("POST", "/health").status, site.ask().body) == (500, page.body)
    for name, text in mended.items():
        site.write(name, text)
    site.wait_for_content("a 2")
    log = site.server.stderr_text()
    assert log.count("the application is not ready") == 1
    assert log.count("has changed: restarting") == log.count("reloading\n") == 1
    assert site.server.stop() == 0


def test_broken_settings_are_a_page_until_they_are_mended(site: Site) -> None:
    """The old workers have told of a change and watch no more; so others show what is wrong, and watch."""
    site.write("gunicorn.conf", "workers = 1\n")
    site.start()
    site.write("gunicorn.conf", "workers = [\n")
    assert "gunicorn.conf.py" in site.wait_for_failure("SyntaxError").body.decode()
    site.write("gunicorn.conf", "workers = 2\n")
    site.wait_for_content("a 1")
    assert site.server.stop() == 0


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["loaded", "preloaded"])
def test_a_settings_file_that_is_no_code_is_watched_too(site: Site, options: tuple[str, ...]) -> None:
    """Also where it is somewhere else than the code, and while it is not there at all."""
    (site.directory / "conf").mkdir()
    other = site.directory / "conf/more.toml"
    write_whole(site.directory / "pyproject.toml", "[tool.epollwsgi]\nconfig = 'conf/more.toml'\n")
    write_whole(other, "raw_env = ['V=1']\n")
    site.write("part", "import os\nVALUE = os.environ.get('V')\n")
    site.start(*options)
    site.wait_for_content("1 1")
    write_whole(other, "raw_env = [\n")
    site.wait_for_failure("conf/more.toml:1: not TOML")
    write_whole(other, "raw_env = ['V=2']\n")
    site.wait_for_content("2 1")
    other.unlink()
    site.wait_for_failure("conf/more.toml: No such file or directory")
    write_whole(other, "raw_env = ['V=3']\n")
    site.wait_for_content("3 1")
    assert site.server.stop() == 0


def test_a_server_stops_while_its_code_is_broken(site: Site) -> None:
    site.start("-w", "2")
    site.write("site_app", "raise RuntimeError('first')\n")
    site.wait_for_failure("first")
    assert site.server.stop() == 0


def test_what_is_saved_while_it_is_loaded_is_served(site: Site) -> None:
    """The module has been read, and the loading goes on; the author saves it again."""
    site.start()
    slow = "import os, time, part\nopen('loading', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    site.write("site_app", slow + APP.format(version=2))
    wait_until((site.directory / "loading").exists, WAIT_S, "the loading")
    site.write("part", "VALUE = 'b'\n")
    (site.directory / "go").touch()
    site.wait_for_content("b 2")


def text_of(tab: Tab) -> str:
    """What the page shows; '' while it is being loaded."""
    try:
        return str(tab.evaluate("document.body.innerText"))
    except RuntimeError:
        return ""


def test_the_page_in_a_browser_reloads_itself(site: Site) -> None:
    """When the failure is another one, and when the code is mended; nothing is asked for but the page."""
    site.write("site_app", "raise RuntimeError('first')\n")
    site.start()
    with Browser() as browser:
        tab = browser.open(f"{site.server.url}/some/path?x=1")
        assert "RuntimeError: first" in text_of(tab)
        assert "This page reloads itself" in text_of(tab)
        site.write("site_app", "raise RuntimeError('second')\n")
        site.wait_for_failure("second")
        wait_until(lambda: "RuntimeError: second" in text_of(tab), WAIT_S, "the other failure")
        site.write("site_app", APP.format(version=2))
        wait_until(lambda: text_of(tab) == "a 2", WAIT_S, "the application")
        urls = {url for url in tab.requests.values() if not url.endswith("/favicon.ico")}
        assert urls == {f"{site.server.url}/some/path?x=1"}
        assert not [words for words in tab.failures if "500" not in words and "net::ERR" not in words]


def test_extra_files(site: Site) -> None:
    """A template is watched if it is named, by a directory or a pattern; the application reads it once."""
    pages = site.directory / "pages"
    pages.mkdir()
    (pages / "a.html").write_text("first")
    (site.directory / "words.txt").write_text("one")
    site.write("part", "VALUE = open('pages/a.html').read() + open('words.txt').read()\n")
    site.start("--reload-extra-file", "pages", "--reload-extra-file", "*.txt")
    site.wait_for_content("firstone 1")
    (pages / "a.html").write_text("second")
    site.wait_for_content("secondone 1")
    (site.directory / "words.txt").write_text("two")
    site.wait_for_content("secondtwo 1")


def test_many_saves_in_a_row_end_with_the_last(site: Site) -> None:
    site.start()
    workers = {int(site.ask()["X-Worker"])}
    for number in range(30):
        site.write("part", f"VALUE = {number}\n")
        site.write("site_app", APP.format(version=number) if number % 3 else "def app(:\n")
        answer = site.ask()
        if "X-Worker" in answer:
            workers.add(int(answer["X-Worker"]))
    site.wait_for_content("29 29")
    now = int(site.ask()["X-Worker"])
    wait_until(lambda: not any(map(is_alive, workers - {now})), WAIT_S, "the end of the old workers")
    assert site.server.stop() == 0


def test_an_unknown_engine_is_one_line(site: Site) -> None:
    site.server = site.start_server("site_app:app", "--reload", "--reload-engine", "x", cwd=site.directory, wait=False)
    assert site.server.process.wait(WAIT_S) in (1, 2)
    text = site.server.stderr_text()
    assert "Traceback" not in text
    assert all(word in text for word in ("reload-engine", "auto", "poll", "inotify")) or "reload_engine" in text
    assert len(text.splitlines()) == 1
