"""epollwsgi.serve in programs: what may be served, what is refused, and what the program finds when it returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import HTTP_ADDRESS, Client, clean_environment, wait_until

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = """\
import os, signal, sys
import epollwsgi
from epollwsgi.errors import StartError

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['PATH_INFO']} in {os.getpid()}".encode()]
"""
END_S = 30.0


class Program:
    """A script that runs."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process

    @property
    def said(self) -> str:
        """On standard output."""
        return (self.directory / "out").read_text()

    @property
    def log(self) -> str:
        """What came on standard error."""
        return (self.directory / "err").read_text()

    def address(self, number: int = 0) -> tuple[str, int]:
        """Of the server that was started as the `number`th."""

        def named() -> list[tuple[str, str]]:
            assert self.process.poll() is None, self.log
            found = HTTP_ADDRESS.findall(self.log[: self.log.rfind("\n") + 1])
            return found if len(found) > number else []

        host, port = wait_until(named, END_S, f"the address of server {number}")[number]
        return host, int(port)

    def ask(self, path: str = "/", number: int = 0) -> str:
        """The body of one response."""
        with Client(self.address(number)) as client:
            return client.request(GET % path.encode()).body.decode()

    def change(self, old: str, new: str) -> None:
        """Change its text, by a file in the place of the other."""
        path = self.directory / "program.py"
        text = path.read_text()
        assert text.count(old) == 1
        path.with_suffix(".new").write_text(text.replace(old, new))
        path.with_suffix(".new").rename(path)

    def end(self, sig: int = signal.SIGTERM) -> int:
        """Send it, and wait for the end of the program; its exit code."""
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        """The exit code at its own end."""
        return self.process.wait(END_S)


Run = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """run(text, *arguments): a program of that text in a file program.py, which is killed at the end."""
    with ExitStack() as at_end:

        def start(text: str, *arguments: str, env: dict[str, str] | None = None) -> Program:
            (tmp_path / "program.py").write_text(HEAD + text)
            with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
                process = subprocess.Popen(
                    [sys.executable, "-W", "error", *(arguments or ("program.py",))],
                    cwd=tmp_path,
                    env=clean_environment(env),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )

            def kill() -> None:
                process.kill()
                process.wait()

            at_end.callback(kill)
            return Program(tmp_path, process)

        yield start


# --- what is served -------------------------------------------------------------------------------------------------

SERVED = {
    "object": "app",
    "name": "'program:app'",
    "setting": "None, wsgi_app='program:app'",
    "factory": "'program:make()'",
}


@pytest.mark.parametrize("kind", SERVED)
def test_an_application(run: Run, kind: str) -> None:
    text = f"""
def make():
    return app

if __name__ == "__main__":
    print("code", epollwsgi.serve({SERVED[kind]}, bind="127.0.0.1:0", workers=2))
"""
    program = run(text)
    path, _, pid = program.ask("/x").split()
    assert path == "/x"
    assert int(pid) != program.process.pid
    assert program.end() == 0
    assert program.said == "code 0\n"


@pytest.mark.parametrize("target", ["'./site'", "pathlib.Path('site')", "static={'/': 'site'}", "static=['/=site']"])
def test_a_site(run: Run, tmp_path: Path, target: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("home")
    program = run(f"import pathlib\nepollwsgi.serve({target}, bind='127.0.0.1:0')")
    assert program.ask() == "home"
    assert program.end() == 0


def test_hooks_and_files_beside_an_application(run: Run, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("file")
    text = """
epollwsgi.serve(
    app,
    bind=["127.0.0.1:0"],
    static={"/public": "public"},
    when_ready=lambda server: print("ready", flush=True),
    on_exit=lambda server: print("exit", flush=True),
)
"""
    program = run(text)
    assert program.ask("/public/a.txt") == "file"
    assert program.ask("/other").startswith("/other in ")
    assert program.end() == 0
    assert program.said == "ready\nexit\n"


def test_no_other_source_of_settings_is_read(run: Run, tmp_path: Path) -> None:
    for name in ("gunicorn.conf.py", "epollwsgi.toml", "pyproject.toml"):
        (tmp_path / name).write_text("this is read by nobody")
    env = {
        "EPOLLWSGI_THREADS": "nonsense",
        "GUNICORN_CMD_ARGS": "--nonsense",
        "PORT": "nonsense",
        "WEB_CONCURRENCY": "x",
    }
    program = run("epollwsgi.serve(app, bind='127.0.0.1:0')", "program.py", "--nonsense", env=env)
    assert program.ask("/x").startswith("/x in ")
    assert program.end() == 0


# --- what is refused ------------------------------------------------------------------------------------------------

REFUSALS = {
    "unknown name": ("app, bnd='x'", "ConfigError serve(): bnd: no such setting; did you mean bind?"),
    "bad value": ("app, threads='many'", "ConfigError serve(): threads = 'many': a whole number from 1"),
    "settings file": ("app, config='x'", "ConfigError serve(): config: the command line has this setting"),
    "check": ("app, check_config=True", "ConfigError serve(): check_config: the command line has"),
    "hook": ("app, on_exit=lambda: None", "on_exit: a function that can be called with (server) is allowed"),
    "hook that is none": ("app, on_exit=5", "ConfigError serve(): on_exit = 5: a function"),
    "nothing": ("", "ConfigError serve(): nothing to serve: an application, a directory or static mounts are allowed"),
    "number": ("5", "ConfigError serve(): 5 is no WSGI application"),
    "factory": ("lambda: app", "cannot be called with (environ, start_response)"),
    "no module": ("'no_such_module'", "ApplicationFailed there is no module named no_such_module"),
    "no attribute": ("'program:nothing'", "ApplicationNotFound program has no attribute nothing"),
    "no directory": ("'./none'", "ConfigError ./none: No such file or directory"),
    "address": ("app, bind='192.0.2.1:80'", "ConfigError cannot listen at 192.0.2.1:80: Cannot assign"),
    "start that fails": ("app, on_starting=lambda server: 1 / 0", "HookFailed the hook on_starting failed"),
}  # fmt: skip


def test_mistakes_are_raised_and_leave_nothing(run: Run) -> None:
    calls = "".join(
        f"say({name!r}, lambda: epollwsgi.serve({arguments}{',' if arguments else ''} **free({arguments!r})))\n"
        for name, (arguments, _) in REFUSALS.items()
    )
    text = f"""
import threading

def free(arguments):
    return {{}} if "bind" in arguments else {{"bind": "127.0.0.1:0"}}

def state():
    fds = sorted(os.listdir("/proc/self/fd"))
    return fds, signal.getsignal(signal.SIGTERM), os.getcwd(), sys.path, os.umask(0o22), dict(os.environ)

def say(name, call):
    before = state()
    try:
        call()
    except StartError as error:
        print(f"{{name}}: {{type(error).__name__}} {{error}}")
    if state() != before:
        print(f"{{name}}: {{state()}} instead of {{before}}")

if __name__ == "__main__":
    os.umask(0o22)
    {calls.replace(chr(10), chr(10) + "    ")}
    print("end")
"""
    program = run(text)
    assert program.wait() == 0, program.log
    said = program.said
    assert said.endswith("\nend\n")
    for name, (_, message) in REFUSALS.items():
        [line] = [line for line in said.splitlines() if line.startswith(f"{name}: ")]
        assert message in line
    assert " instead of " not in said


def test_another_thread_is_told_of_live_server(run: Run) -> None:
    text = """
import threading

def serve():
    try:
        epollwsgi.serve(app, bind="127.0.0.1:0")
    except StartError as error:
        print(type(error).__name__, error)

thread = threading.Thread(target=serve)
thread.start()
thread.join()
"""
    program = run(text)
    assert program.wait() == 0
    assert program.said == (
        "ConfigError serve() was called on a thread, and signals come to the main thread only; "
        "epollwsgi.testing.LiveServer serves in the background\n"
    )


def test_a_script_without_the_guard_is_told_so(run: Run) -> None:
    program = run("epollwsgi.serve('program:app', bind='127.0.0.1:0')")
    assert program.wait() == 1
    assert "serve() was called where a worker loads the application while it serves" in program.log
    assert 'if __name__ == "__main__":' in program.log
    assert program.log.count("ApplicationFailed") == 1


# --- what the program finds afterwards ------------------------------------------------------------------------------


def test_twice_in_one_process(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    text = """
import threading

def handler(number, frame):
    print("handled", flush=True)

def state():
    umask = os.umask(0)
    os.umask(umask)
    return {
        "fds": sorted(os.listdir("/proc/self/fd")),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "umask": umask,
        "directory": os.getcwd(),
        "environ": dict(os.environ),
        "path": list(sys.path),
        "threads": threading.active_count(),
    }

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    before = state()
    for number in range(2):
        settings = {"chdir": "elsewhere", "raw_env": ["COLOUR=blue"], "umask": "077", "workers": 2}
        print(epollwsgi.serve(app, bind="127.0.0.1:0", **settings), flush=True)
        if state() != before:
            print(state(), before)
    os.kill(os.getpid(), signal.SIGTERM)
    print("end")
"""
    program = run(text)
    for number, sig in enumerate((signal.SIGTERM, signal.SIGINT)):
        assert program.ask("/x", number).startswith("/x in ")
        program.process.send_signal(sig)
        wait_until(lambda number=number: program.said.count("\n") > number, END_S, "serve to return")  # type: ignore[misc]
    assert program.wait() == 0
    assert program.said == "0\n0\nhandled\nend\n"


def test_atexit_is_called_in_workers_and_in_the_program(run: Run) -> None:
    text = """
import atexit
atexit.register(lambda: print("at exit of", os.getpid(), flush=True))
epollwsgi.serve(app, bind="127.0.0.1:0")
print("served", flush=True)
sys.exit(7)
"""
    program = run(text)
    _, _, worker = program.ask().split()
    assert program.end() == 7
    assert program.said == f"at exit of {worker}\nserved\nat exit of {program.process.pid}\n"


def test_an_exception_in_a_worker_never_unwinds_the_program(run: Run) -> None:
    """Workers are forked within serve: what stands behind it, or in `finally`, is the program's alone."""
    text = """
try:
    epollwsgi.serve(app, bind="127.0.0.1:0", workers=2)
finally:
    print("finally", os.getpid(), flush=True)
"""
    program = run(text)
    _, _, worker = program.ask().split()
    os.kill(int(worker), signal.SIGTERM)
    wait_until(lambda: program.ask().split()[2] != worker, END_S, "another worker")
    assert program.end() == 0
    assert program.said == f"finally {program.process.pid}\n"


# --- reload ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["a change", "HUP"])
def test_a_name_is_loaded_again(run: Run, tmp_path: Path, by: str) -> None:
    module = tmp_path / "shop.py"
    module.write_text("def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'one']\n")
    program = run(
        f"if __name__ == '__main__':\n    epollwsgi.serve('shop:app', bind='127.0.0.1:0', reload={by == 'a change'})\n"
    )
    assert program.ask() == "one"
    module.write_text(module.read_text().replace("one", "two"))
    if by == "HUP":
        program.process.send_signal(signal.SIGHUP)
    wait_until(lambda: program.ask() == "two", END_S, "the new code")
    assert program.end() == 0


def test_an_object_stays_what_it_is_with_hup(run: Run) -> None:
    program = run("epollwsgi.serve(app, bind='127.0.0.1:0')")
    first = program.ask("/x")
    program.change("environ['PATH_INFO']", "'new'")
    program.process.send_signal(signal.SIGHUP)
    wait_until(lambda: program.ask("/x") != first, END_S, "a new worker")
    assert program.ask("/x").startswith("/x in ")
    assert program.end() == 0


AGAIN = """
import atexit
print("runs", flush=True)
atexit.register(lambda: os.write(1, f"exit {os.getppid() == PARENT}\\n".encode()))  # whole: two may end at once
PARENT = os.getppid()
handler = lambda number, frame: None
signal.signal(signal.SIGTERM, handler)
code = epollwsgi.serve(app, bind="127.0.0.1:0", workers=1, %s)
restored = signal.getsignal(signal.SIGTERM) is handler and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
print("served", code, restored, flush=True)
"""


@pytest.mark.parametrize("command", ["program.py", "-m program"])
def test_the_program_is_executed_again_by_usr2(run: Run, command: str) -> None:
    """With the same pid and listener; the dry run before it ends at serve, and calls nothing that stands at the end."""
    program = run(AGAIN % "", *command.split())
    address = program.address()
    program.change("environ['PATH_INFO']", "'new'")
    program.process.send_signal(signal.SIGUSR2)

    def body() -> str:
        with Client(address) as client:
            return client.request(GET % b"/x").body.decode()

    wait_until(lambda: body().startswith("new in "), END_S, "the new code")
    assert program.end() == 0
    # Started, the new image and both its worker's end and its own; the first image has none, the first worker has.
    assert program.said.replace("exit False\n", "") == "runs\nruns\nserved 0 True\nexit True\n"
    assert program.said.count("exit False\n") == 2


def test_a_program_that_is_broken_meanwhile_goes_on(run: Run) -> None:
    program = run("epollwsgi.serve(app, bind='127.0.0.1:0')")
    first = program.ask("/x")
    program.change("import epollwsgi", "import epollwsgi, no_such_module")
    program.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "No module named 'no_such_module'" in program.log, END_S, "the traceback of the dry run")
    assert "upgrade failed: what was running goes on" in program.log
    program.change("import epollwsgi, no_such_module", "import epollwsgi; print('nothing is served'); sys.exit()")
    program.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "the program ended before it called epollwsgi.serve" in program.log, END_S, "another refusal")
    assert "nothing is served" in program.log
    assert program.ask("/x") == first
    assert program.end() == 0


def test_an_object_is_loaded_again_by_reload(run: Run) -> None:
    """Also after a mistake, which is shown until it is mended, like code that is named."""
    program = run(AGAIN % "reload=True")
    address = program.address()

    def body() -> str:
        with Client(address) as client:
            return client.request(GET % b"/x").body.decode()

    assert body().startswith("/x in ")
    program.change("environ['PATH_INFO']", "'two'")
    wait_until(lambda: body().startswith("two in "), END_S, "the second code")
    program.change("def app(", "def app((")
    wait_until(lambda: "SyntaxError" in body(), END_S, "the page of the mistake")
    assert "The application cannot be loaded" in body()
    assert "SyntaxError" in program.log
    program.change("def app((", "raise KeyError('second')\ndef app(")
    wait_until(lambda: "KeyError: &#x27;second&#x27;" in body(), END_S, "the page of another mistake")
    program.change("raise KeyError('second')\ndef", "def")
    program.change("'two'", "'three'")
    wait_until(lambda: body().startswith("three in "), END_S, "the third code")
    assert program.end() == 0


def test_where_nobody_knows_how_to_start_again(run: Run) -> None:
    text = """
try:
    epollwsgi.serve(app, bind="127.0.0.1:0", reload=True)
except StartError as error:
    print(error, flush=True)
epollwsgi.serve(app, bind="127.0.0.1:0")
"""
    program = run(text, "-i", "program.py")
    assert program.ask("/x").startswith("/x in ")
    assert "name the application, as in serve('shop:app', reload=True)" in program.said
    program.process.send_signal(signal.SIGUSR2)
    wait_until(
        lambda: "upgrade failed: nobody knows how to start this program again" in program.log, END_S, "a refusal"
    )
    assert program.ask("/x").startswith("/x in ")
    assert program.end() == 0
