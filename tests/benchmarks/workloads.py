"""What is asked of the servers and how fast the answer has to be: the bounds of issues 2 and 5, one table."""

from __future__ import annotations

from dataclasses import dataclass

HELLO = "tests.benchmarks.apps:hello"
POST = "tests.benchmarks.apps:post"
FLASK = "tests.benchmarks.flask_app:app"
HELLO_SIZE = 14

SITE = {
    "1k.html": 1024,
    "20k.html": 20_000,
    "200k.html": 200_000,
    "2m.html": 2_000_000,
    "100m.html": 100_000_000,
    "coded.html": 40_000,  # of which 20 kB are left in coded.html.gz
}
MANY_COUNT, MANY_SIZE = 10_000, 1024  # files many/NUMBER.html
SITE_DATE = "Wed, 01 Jan 2025 00:00:00 GMT"  # when all of them were modified
LATENCY_CONNECTIONS = (1, 4, 64, 1000)
WATCHED_SIZE = 1_000_000  # at most


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
    def watched(self) -> tuple[str, int]:
        """Path and size of what is asked for beside the load, to see that answers are right and soon."""
        return ("/1k.html", SITE["1k.html"]) if self.content_size > WATCHED_SIZE else (self.path, self.content_size)

    @property
    def needs(self) -> str:
        """What a server must be able to serve."""
        return "application" if self.application else "files"


BROWSER = ("fields=browser", "query=1")
FASTEST_FLASK = (Bound("bjoern", 1.05), Bound("granian", 1.0), Bound("gunicorn", 1.0), Bound("waitress", 1.0))


def of_file(name: str, title: str, file: str, *bounds: Bound, field: str = "") -> Workload:
    """A load of one static file. field: one more field line of each request."""
    options = (f"field={field}",) if field else ()
    return Workload(name, title, "", f"/{file}", SITE[file], options, reference="nginx", bounds=bounds)


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
    of_file("static-1k", "static file, 1 KiB", "1k.html", Bound("nginx", 0.95)),
    of_file("static-20k", "static file, 20 kB", "20k.html", Bound("nginx", 0.95)),
    of_file("static-304", "304 to it", "20k.html", Bound("nginx", 0.95), field=f"If-Modified-Since: {SITE_DATE}"),
    of_file("static-200k", "static file, 200 kB", "200k.html", Bound("nginx", 1.1)),
    of_file("static-2m", "static file, 2 MB", "2m.html", Bound("nginx", 1.1)),
    of_file(
        "static-range",
        "1 KiB out of 100 MB",
        "100m.html",
        Bound("nginx", 1.2),
        field="Range: bytes=50000000-50001023",
    ),
    of_file(
        "static-gzip",
        "static file, 20 kB gzipped before",
        "coded.html",
        Bound("nginx", 1.0),
        field="Accept-Encoding: gzip",
    ),
    Workload(
        "static-many",
        "10,000 files of 1 KiB in rotation",
        "",
        "/many/1.html",
        MANY_SIZE,
        (f"files={MANY_COUNT}",),
        reference="nginx",
        bounds=(Bound("nginx", 1.2),),
    ),
    Workload("post", "POST of 1 KiB", POST, options=("body=1024",)),
    Workload("close", "hello, a connection per request", HELLO, options=("close=1",)),
)

LATENCIES = tuple(
    Workload("latency", f"{count:,} connections" if count > 1 else "1 connection", HELLO, connections=count)
    for count in LATENCY_CONNECTIONS
)
NAMES = (*(workload.name for workload in WORKLOADS), "latency")
