"""Applications of many shapes, chosen by the path: /NAME runs NAME of `valid`, `wrong` or `more`.

What happens in them is noted as a list of words: each call, each next item, each close(), with a number for the thread
it ran on; GET /events gives that as JSON and forgets it. `validated` is the same behind wsgiref.validate.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import isfunction
from wsgiref.validate import validator

from tests.apps import more, valid, wrong
from tests.apps.base import App, Environ, Start, note, with_length

SHAPES: dict[str, App] = wrong.BREACHES | {
    name: shape
    for module in (valid, wrong, more)
    for name, shape in vars(module).items()
    if isfunction(shape) and shape.__module__ == module.__name__
}


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/").partition("/")[0]
    if name != "events":
        note("call")
    shape = SHAPES.get(name)
    if shape is None:
        start("404 Not Found", with_length(0))
        return []
    result: Iterable[bytes] = shape(environ, start)
    return result


validated: App = validator(app)
