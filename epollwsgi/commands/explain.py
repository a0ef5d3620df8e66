"""`epollwsgi explain METHOD PATH`: how a request would be answered, step by step, with the exact head of the response.

Nothing here decides: the request is parsed and answered by the serving code, from the settings and files that the
server would start with. An application is named and never called.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from epollwsgi.command_help import write_section
from epollwsgi.command_line import (
    as_directory,
    build_options,
    call_command,
    given_values,
    load_settings,
    settle_target,
)
from epollwsgi.commands.serving import open_handler
from epollwsgi.dispatch import ALLOW_ALL, ALLOW_FILES, connection_field
from epollwsgi.errors import HTTPError, UsageError
from epollwsgi.http import response as r
from epollwsgi.http.dates import format_date
from epollwsgi.http.fields import Environ
from epollwsgi.http.forwarded import Forwarding
from epollwsgi.http.head import HeadParser, RequestLine, body_length, check_host, expects_continue, is_kept
from epollwsgi.service import SERVER_SOFTWARE, build_forwarding, head_limits

if TYPE_CHECKING:
    import click

    from epollwsgi.config.settings import Settings
    from epollwsgi.static.replies import Reply

EXAMPLES: Final = (
    ("epollwsgi explain GET /p.js -H 'Accept-Encoding: br' ./html", ""),
    ("epollwsgi explain GET /assets/p.js app:app --static /assets=./public", ""),
)
FIELD: Final = re.compile(r"[^\r\n\0:]+:[^\r\n\0]*")


class Asked(NamedTuple):
    """What stands on the command line."""

    method: str
    path: str
    target: str
    fields: tuple[str, ...]
    given: Mapping[str, object]


def run(arguments: Sequence[str]) -> int:
    """The command; 0 where the request could be explained, whatever its answer. Raises StartError."""
    import click

    asked = call_command(build_command(), arguments)
    if not isinstance(asked, Asked):  # --help has answered
        return 0
    for line in asked.fields:
        if not FIELD.fullmatch(line):
            raise UsageError(f"-H {line!r}: a field line such as 'Accept-Encoding: br' is allowed")
    loaded = load_settings(asked.given)
    application = settle_target(loaded, as_directory(asked.target or loaded.settings.wsgi_app))
    if not application and not loaded.settings.static:
        raise UsageError("nothing to explain: name a directory or an application (epollwsgi explain --help)")
    steps, head = explain(asked, loaded.settings, application)
    for number, step in enumerate(steps, 1):
        click.echo(f"{number:3}. {step}")
    if head:
        click.echo("\n" + head.decode("latin-1").replace("\r\n", "\n").rstrip("\n"))
    return 0


def build_command() -> click.Command:
    """The click command; it returns what was asked."""
    import click

    @click.pass_context
    def collect(
        ctx: click.Context, /, method: str, path: str, target: str | None, field: tuple[str, ...], **values: object
    ) -> Asked:
        return Asked(method, path, target or "", field, given_values(ctx, values))

    class Shown(click.Command):
        """Shows examples below the options."""

        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            write_section(formatter, "Examples", EXAMPLES)

    return Shown(
        "epollwsgi explain",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        callback=collect,
        params=[
            click.Argument(["method"], metavar="METHOD"),
            click.Argument(["path"], metavar="PATH"),
            click.Argument(["target"], required=False, metavar="[DIRECTORY|APP]"),
            click.Option(
                ["-H", "--header", "field"], multiple=True, metavar="'FIELD: VALUE'", help="a field line of the request"
            ),
            *build_options(("Static files",)),
        ],
        help="Show how a request would be answered from the files of a site, step by step, and the head of the "
        "response. All options of the server are understood; settings come from the same files.",
    )


def explain(asked: Asked, settings: Settings, application: str) -> tuple[list[str], bytes]:
    """The steps, in whole sentences, and the head of the response; b'' where the application makes it."""
    steps: list[str] = []
    said: list[Environ] = []  # of a request with forwarding fields: the environ, whose Host may follow from its target
    forwarding = build_forwarding(settings)
    parser = HeadParser(
        head_limits(settings),
        header_map=settings.header_map,
        script_name=settings.script_name,
        on_dropped=lambda name: steps.append(f"The field {name} is dropped (header_map = {settings.header_map})."),
        names=forwarding.names,
        believe=lambda environ: said.append(environ),
    )
    common = build_common(settings)
    try:
        request, environ = parse_request(parser, asked)
    except HTTPError as error:
        steps.append(f"The request is refused with {error.status}: {error}.")
        return steps, build_refusal(error.status, asked.method, common + r.CLOSE)
    steps += [explain_forwarded(forwarding, settings, environ) for environ in said]
    keep = settings.keepalive > 0 and is_kept(request.protocol, environ.get("HTTP_CONNECTION"))
    common += connection_field(request.protocol, keep)
    if request.path == "*":
        steps.append("The target * is the server itself, which answers.")
        return steps, r.STATUS_LINES[204] + (ALLOW_ALL if application else ALLOW_FILES) + common
    reply, reasons = ask_files(settings, application, request, environ)
    steps += reasons
    if reply is not None:
        return steps, reply.head + common
    if request.path_info is None:
        steps.append(f"The path lies outside of script_name = {settings.script_name}, where nobody answers: 404.")
        return steps, build_refusal(404, request.method, common)
    steps.append(f"The request goes to the application {application}, which makes the response.")
    return steps, b""


def explain_forwarded(forwarding: Forwarding, settings: Settings, environ: Environ) -> str:
    """What a trusted proxy says with its fields. environ stays as it is: nobody knows who will send them."""
    if not settings.forwarded_allow_ips:
        return "Nobody is in forwarded_allow_ips: the forwarding fields change nothing."
    believed = environ.copy()
    whom = f"From a peer in forwarded_allow_ips = {','.join(settings.forwarded_allow_ips)} "
    try:
        forwarding.apply(believed)
    except HTTPError as error:
        return f"{whom}it is refused with {error.status}: {error}."
    items = [f"{key} = {value}" for key, value in believed.items() if environ.get(key) != value]
    fields = f"forwarded_fields = {','.join(settings.forwarded_fields)}"
    if not items:
        return f"{whom}the forwarding fields change nothing ({fields})."
    return f"{whom}the forwarding fields mean {', '.join(items)} ({fields}); from others they change nothing."


def build_common(settings: Settings) -> bytes:
    """The field lines that end the head of every response."""
    server = "" if settings.no_server_header else f"Server: {SERVER_SOFTWARE}\r\n"
    return f"Date: {format_date(time.time())}\r\n{server}".encode("ascii")


def build_refusal(status: int, method: str, common: bytes) -> bytes:
    """The head of a short error page."""
    return r.insert_fields(r.build_error(status, method), common).partition(b"\r\n\r\n")[0]


def parse_request(parser: HeadParser, asked: Asked) -> tuple[RequestLine, Environ]:
    """The request as a connection would parse it, with a Host unless one is given. Raises HTTPError."""
    lines = list(asked.fields)
    if not any(line.partition(":")[0].lower() == "host" for line in lines):
        lines.insert(0, "Host: localhost")
    request = parser.parse_request_line(f"{asked.method} {asked.path} HTTP/1.1".encode())
    environ: Environ = {}
    parser.parse_fields("\r\n".join(lines).encode(), environ)
    check_host(request, environ)
    body_length(request.protocol, environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"))
    if "HTTP_EXPECT" in environ:
        expects_continue(request.protocol, environ["HTTP_EXPECT"])
    return request, environ


def ask_files(
    settings: Settings, application: str, request: RequestLine, environ: Environ
) -> tuple[Reply | None, list[str]]:
    """What the static files have to say, with the steps that lead there."""
    warnings: list[str] = []
    handler = open_handler(settings, application, warnings.append)
    if handler is None:
        return None, ["No directory is served."]
    steps, reply = handler.explain(request.method, request.path, request.query, environ)
    return reply, [*steps, *(f"The server logs: {warning.removesuffix('.')}." for warning in warnings)]
