"""What is learned of routes: quick ones, slow ones, prefixes with a varying segment, the guarded period; and bounds."""

from __future__ import annotations

import pytest

from epollwsgi.routes import (
    GUARDED_S,
    LATE_CALLS,
    OVERRUN_WINDOW_S,
    PREFIX_PATHS,
    PREFIXES,
    QUICK_CALLS,
    QUICK_S,
    RETURN_CALLS,
    ROUTES,
    Route,
    Routes,
    prefixes_of,
)

Q = QUICK_S / 2
L = QUICK_S  # as long as this is late already

# Durations of calls, one after the other; whether the route is quick, and slow, after them.
LEARNED: dict[str, tuple[list[float], bool, bool]] = {
    "never called": ([], False, False),
    "too few calls": ([Q] * (QUICK_CALLS - 1), False, False),
    "enough quick calls": ([Q] * QUICK_CALLS, True, False),
    "just under the limit": ([QUICK_S * 0.999] * QUICK_CALLS, True, False),
    "at the limit": ([QUICK_S] * QUICK_CALLS, False, True),
    "one late call of an unknown route": ([L], False, True),
    "quick, then late, unknown": ([Q] * (QUICK_CALLS - 1) + [L], False, True),
    "a quick route is late now and then": ([Q] * QUICK_CALLS + [L, L, Q] * 20, True, False),
    "a quick route is late too often in a row": ([Q] * QUICK_CALLS + [L] * LATE_CALLS, False, True),
    "one call fewer": ([Q] * QUICK_CALLS + [L] * (LATE_CALLS - 1), True, False),
    "a slow route comes back": ([L] + [Q] * RETURN_CALLS, True, False),
    "a slow route, one call before that": ([L] + [Q] * (RETURN_CALLS - 1), False, True),
    "a slow route is late once more": ([L] + [Q] * (RETURN_CALLS - 1) + [L] + [Q] * (RETURN_CALLS - 1), False, True),
}


@pytest.mark.parametrize("name", LEARNED)
def test_what_durations_make_of_a_route(name: str) -> None:
    durations, is_quick, is_slow = LEARNED[name]
    route = Route("/")
    for duration in durations:
        route.note_duration(duration)
        assert not (route.is_quick and route.is_slow)
    assert (route.is_quick, route.is_slow) == (is_quick, is_slow)


def test_one_overrun_makes_any_route_slow() -> None:
    for calls in range(QUICK_CALLS + 2):
        route = Route("/")
        for _ in range(calls):
            route.note_duration(Q)
        route.note_overrun()
        assert route.is_slow
        assert not route.is_quick
        for _ in range(RETURN_CALLS):
            assert not route.is_quick
            route.note_duration(Q)
        assert route.is_quick


@pytest.mark.parametrize(
    ("path", "prefixes"),
    [
        ("/", ["/*"]),
        ("/a", ["/*"]),
        ("/a/", ["/*/", "/a/*"]),
        ("/user/7/posts", ["/*/7/posts", "/user/*/posts", "/user/7/*"]),
        ("POST /a/b", ["POST /*/b", "POST /a/*"]),
    ],
)
def test_prefixes(path: str, prefixes: list[str]) -> None:
    assert prefixes_of(path) == prefixes


def test_prefixes_of_a_long_path_are_few() -> None:
    assert len(prefixes_of("/a" * 4000)) == 8


def overrun(routes: Routes, path: str, now: float) -> str:
    return routes.note_overrun(routes.known.get(path) or routes.add(path), now)


def make_quick(routes: Routes, path: str) -> Route:
    route = routes.add(path)
    for _ in range(QUICK_CALLS):
        route.note_duration(Q)
    return route


APART_S = OVERRUN_WINDOW_S * 2


def test_an_unknown_route_may_be_tried_and_a_slow_one_not() -> None:
    routes = Routes()
    assert routes.may_try(routes.add("/a"), 0.0)
    assert overrun(routes, "/a", 0.0) == "/a is slow"
    assert not routes.may_try(routes.known["/a"], 1e9)
    assert routes.may_try(routes.add("/b"), 0.0)


@pytest.mark.parametrize(
    ("paths", "same", "others"),
    [
        (["/user/1", "/user/2", "/user/3"], ["/user/4", "/user/x"], ["/user/4/posts", "/users/4", "/a/b/c"]),
        (["/u/1/p", "/u/2/p", "/u/3/p"], ["/u/4/p"], ["/u/4/q", "/u/4", "/v/4/p"]),
        (["POST /u/1", "POST /u/2", "POST /u/3"], ["POST /u/4"], ["/u/4", "PUT /u/4"]),
    ],
)
def test_paths_that_differ_in_one_segment_make_a_slow_prefix(
    paths: list[str], same: list[str], others: list[str]
) -> None:
    assert len(paths) == PREFIX_PATHS
    routes = Routes()
    for number, path in enumerate(paths):
        for other in same:
            assert routes.may_try(Route(other), 1e6), "too early"
        said = overrun(routes, path, number * APART_S)
    assert "all of" in said
    assert [path for path in same if routes.may_try(Route(path), 1e6)] == []
    assert [path for path in others if not routes.may_try(Route(path), 1e6)] == []


def test_the_same_path_again_makes_no_prefix() -> None:
    routes = Routes()
    for number in range(PREFIX_PATHS * 3):
        assert "all of" not in overrun(routes, "/user/1", number * APART_S)
    assert routes.may_try(Route("/user/2"), 1e6)


@pytest.mark.parametrize(
    ("between_s", "is_guarded"), [(0.0, True), (OVERRUN_WINDOW_S * 0.99, True), (OVERRUN_WINDOW_S * 1.01, False)]
)
def test_two_overruns_of_unknown_routes_begin_a_guarded_period(between_s: float, is_guarded: bool) -> None:
    routes = Routes()
    overrun(routes, "/a", 100.0)
    assert routes.may_try(Route("/new/route"), 100.0)
    said = overrun(routes, "/b/c", 100.0 + between_s)
    assert ("only quick routes" in said) == is_guarded
    begin = 100.0 + between_s
    assert routes.may_try(Route("/new/route"), begin) != is_guarded
    assert routes.may_try(Route("/new/route"), begin + GUARDED_S * 0.99) != is_guarded
    assert routes.may_try(Route("/new/route"), begin + GUARDED_S * 1.01)


def test_overruns_of_quick_routes_begin_none() -> None:
    routes = Routes()
    for path in ("/a", "/b/c", "/d/e/f"):
        make_quick(routes, path)
        overrun(routes, path, 100.0)
        assert routes.known[path].is_slow
    assert routes.may_try(Route("/new"), 100.0)
    overrun(routes, "/unknown", 100.0)
    assert routes.may_try(Route("/new"), 100.0), "one unknown route alone does not guard"


def test_the_tables_are_bounded() -> None:
    routes = Routes()
    for number in range(ROUTES * 2 + 10):
        routes.add(f"/{number}")
        assert len(routes.known) <= ROUTES
    for number in range(PREFIXES * 2):
        overrun(routes, f"/{number}/{number}/{number}", number * APART_S)
        assert len(routes._prefixes) <= PREFIXES
    for number in range((PREFIXES + 10) * PREFIX_PATHS):
        overrun(routes, f"/{number // PREFIX_PATHS}/{number}", number * APART_S)
        assert len(routes._slow_prefixes) <= PREFIXES
    sizes = [len(paths) for paths in routes._prefixes.values()]
    assert max(sizes, default=0) < PREFIX_PATHS, "a prefix keeps no more paths than it needs"
