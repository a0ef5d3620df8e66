"""What is asked of the servers and how fast the answer has to be: the bounds of issue 2, one table."""

from __future__ import annotations

from dataclasses import dataclass

HELLO = "tests.benchmarks.apps:hello"
POST = "tests.benchmarks.apps:post"
FLASK = "tests.benchmarks.flask_app:app"
HELLO_SIZE = 14

SITE = {"1k.html": 1024, "20k.html": 20_000, "200k.html": 200_000}
LATENCY_CONNECTIONS = (1, 4, 64, 1000)


@dataclass(frozen=True, slots=True)
class Bound:
    """epollwsgi may cost at most `factor` times what the reference costs."""

    reference: str
    factor: float


@dataclass(frozen=True, slots=True)
class Workload:
    """One load. `application` is empty for files; `options` go to load.lua; without bounds it is only reported."""

    name: str
    title: str
    application: str
    path: str = "/"
    content_size: int = HELLO_SIZE
    options: tuple[str, ...] = ()
    connections: int = 64
    reference: str = "bjoern"
    bounds: tuple[Bound, ...] = ()

    @property
    def needs(self) -> str:
        """What a server must be able to serve."""
        return "application" if self.application else "files"


BROWSER = ("fields=browser", "query=1")
FASTEST_FLASK = (Bound("bjoern", 1.05), Bound("granian", 1.0), Bound("gunicorn", 1.0), Bound("waitress", 1.0))


def of_file(name: str, title: str, file: str, *bounds: Bound) -> Workload:
    """A load of one static file."""
    return Workload(name, title, "", f"/{file}", SITE[file], reference="nginx", bounds=bounds)


WORKLOADS = (
    Workload("hello", "hello, only a Host field", HELLO, bounds=(Bound("bjoern", 1.10),)),
    Workload(
        "browser",
        "hello, 13 browser fields, a new query each time",
        HELLO,
        options=BROWSER,
        bounds=(Bound("bjoern", 1.0),),
    ),
    Workload(
        "unique",
        "the same, and a cookie and an id of its own in every request",
        HELLO,
        options=(*BROWSER, "unique=1"),
        bounds=(Bound("bjoern", 1.3),),
    ),
    Workload("flask", "Flask hello", FLASK, bounds=FASTEST_FLASK),
    of_file("static-1k", "static file, 1 KiB", "1k.html", Bound("nginx", 1.0)),
    of_file("static-20k", "static file, 20 kB", "20k.html", Bound("nginx", 1.0)),
    of_file("static-200k", "static file, 200 kB", "200k.html"),
    Workload("post", "POST of 1 KiB", POST, options=("body=1024",)),
    Workload("close", "hello, a connection per request", HELLO, options=("close=1",)),
)

LATENCIES = tuple(
    Workload("latency", f"{count:,} connections" if count > 1 else "1 connection", HELLO, connections=count)
    for count in LATENCY_CONNECTIONS
)
NAMES = (*(workload.name for workload in WORKLOADS), "latency")
