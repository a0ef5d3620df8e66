"""A small Flask project: a factory, and a command of Flask's own that starts epollwsgi.

    flask --app shop --debug serve       # while code is written
    flask --app shop serve               # as in production; options of epollwsgi may follow: serve -w 2

`flask run` cannot be given another server, so the command has a name of its own. What it does stands in run.py.
"""

from __future__ import annotations

import click
from flask import Flask, jsonify, render_template_string, url_for
from run import start
from werkzeug.wrappers import Response

PRICES = {"tea": 250, "coffee": 320}  # in cents
PAGE = """\
<!doctype html>
<html lang="en">
<title>Shop</title>
<link rel="stylesheet" href="{{ url_for('static', filename='shop.css') }}">
<h1>Shop</h1>
<ul>
{%- for name in prices %}
<li><a href="{{ url_for('item', name=name) }}">{{ name }}</a></li>
{%- endfor %}
</ul>
"""


def create_app(prices: dict[str, int] | None = None) -> Flask:
    """A new shop; without `prices` the usual ones."""
    app = Flask(__name__)
    stock = PRICES if prices is None else prices

    @app.get("/")
    def home() -> str:
        return render_template_string(PAGE, prices=stock)

    @app.get("/items/<name>")
    def item(name: str) -> Response | tuple[Response, int]:
        if name not in stock:
            return jsonify(error="no such item"), 404
        return jsonify(name=name, cents=stock[name], at=url_for("item", name=name, _external=True))

    @app.get("/health")
    def health() -> str:
        """Asked by the server before a worker counts as ready, and by whatever watches it."""
        return "well\n"

    # Options that this command does not know are epollwsgi's.
    @app.cli.command("serve", context_settings={"ignore_unknown_options": True})
    @click.argument("options", nargs=-1, type=click.UNPROCESSED)
    def serve(options: tuple[str, ...]) -> None:
        """Serve with epollwsgi."""
        start(options, development=app.debug)

    return app
