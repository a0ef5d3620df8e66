"""The site in html/: well-formed, complete in itself, true to the code, and looked at in a browser."""

from __future__ import annotations

import itertools
import re
import shlex
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

import click
import pytest

from epollwsgi.cli import build_command
from epollwsgi.commands.table import COMMANDS
from epollwsgi.config.settings import FORWARDED_FIELDS, OPTIONS, SECURE_SCHEME_HEADERS
from epollwsgi.logs.presets import PRESETS
from epollwsgi.process.hooks import HOOKS
from examples.app import app
from tests import html_gunicorn, html_tables
from tests.browser import Browser
from tests.pages import Page
from tests.support import Client, Server, ServerFactory

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "html"
PAGES = sorted(path.name for path in SITE.glob("*.html"))
COLOURS = re.compile(r"--([a-z]+): (#[0-9a-f]{6});")


def read_page(name: str) -> Page:
    return Page((SITE / name).read_text("utf-8"))


def read_colours() -> dict[str, dict[str, str]]:
    """The custom properties of style.css that are colours, in light and in dark."""
    light, dark = re.findall(r":root \{(.*?)\}", (SITE / "style.css").read_text("utf-8"), re.DOTALL)
    return {"light": dict(COLOURS.findall(light)), "dark": dict(COLOURS.findall(dark))}


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# --- each page by itself ----------------------------------------------------------------------------------------------


def test_the_site_has_its_pages() -> None:
    assert {
        "index.html",
        "start.html",
        "settings.html",
        "gunicorn.html",
        "static.html",
        "processes.html",
        "proxies.html",
        "logs.html",
        "python.html",
        "how.html",
        "numbers.html",
        "404.html",
    } <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_well_formed(name: str) -> None:
    page = read_page(name)
    assert page.faults == []
    assert (SITE / name).read_bytes().startswith(b"<!doctype html>\n")
    assert page.elements[0] == ("html", {"lang": "en"})
    assert {"charset": "utf-8"} in page.all("meta")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert len(page.all("title")) >= 1
    assert page.texts["title"][0].strip()
    assert [meta["content"] for meta in page.all("meta") if meta.get("name") == "description"] != []
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    assert len(page.ids()) == len(set(page.ids()))
    assert all("alt" in image for image in page.all("img"))


@pytest.mark.parametrize("name", PAGES)
def test_headings_skip_no_level(name: str) -> None:
    levels = [int(tag[1]) for tag, _ in read_page(name).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("name", PAGES)
def test_page_needs_no_script_and_nothing_from_elsewhere(name: str) -> None:
    page = read_page(name)
    assert page.all("script") == page.all("style") == page.all("iframe") == []
    for tag, attributes in page.elements:
        assert not [a for a in attributes if a.startswith("on") or a == "style"], (tag, attributes)
    for link in page.links():
        assert not urlsplit(link).scheme, link
        assert not urlsplit(link).netloc, link


def test_style_loads_nothing() -> None:
    style = (SITE / "style.css").read_text("utf-8")
    assert "url(" not in style
    assert "@import" not in style
    assert style.count("{") == style.count("}")


def test_titles_and_descriptions_differ() -> None:
    titles = [read_page(name).texts["title"][0] for name in PAGES]
    assert len(set(titles)) == len(titles)
    descriptions = [
        meta["content"] for name in PAGES for meta in read_page(name).all("meta") if meta.get("name") == "description"
    ]
    assert len(set(descriptions)) == len(descriptions) == len(PAGES)


# --- what holds them together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in read_page(name).links():
        path, fragment = urlsplit(urljoin(f"/{name}", link))[2::2]
        file = SITE / (path[1:] or "index.html")
        if file.is_file():
            assert not fragment or fragment in read_page(file.name).ids(), link
        else:
            assert path == "/app" or path.startswith("/app/"), link
            assert app.test_client().get(path).status_code == 200, link


def test_links_are_relative_but_on_the_page_for_any_path() -> None:
    """The site can be mounted under a prefix; 404.html is sent for paths of any depth."""
    for name in PAGES:
        absolute = {link for link in read_page(name).links() if link.startswith("/")}
        if name == "404.html":
            assert absolute == set(read_page(name).links()) - {"#content"}
        else:
            assert absolute <= {"/app"}


def test_every_file_is_linked_or_asked_for_by_name() -> None:
    linked = {urljoin(f"/{name}", link)[1:] for name in PAGES for link in read_page(name).links()}
    assert {path.name for path in SITE.iterdir()} - linked == {"index.html", "404.html", "favicon.ico"}


def test_pages_share_their_header_and_footer() -> None:
    def strip(name: str) -> tuple[str, ...]:
        text = (SITE / name).read_text("utf-8").replace(' aria-current="page"', "")
        if name == "404.html":
            text = re.sub(r'(href|src)="/(?=")', r'\1="./', text)
            text = re.sub(r'(href|src)="/(?=[a-z])', r'\1="', text)
        found = re.search(r"(<a class=\"skip\".*?</header>).*(<footer.*</footer>)", text, re.DOTALL)
        assert found, name
        return found.groups()

    assert {strip(name) for name in PAGES} == {strip("index.html")}
    for name in PAGES:
        current = [link["href"] for link in read_page(name).all("a") if "aria-current" in link]
        assert current == ([] if name in ("index.html", "404.html") else [name])


# --- images and colours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.name for path in SITE.glob("*.svg")))
def test_images_are_xml_without_script(name: str) -> None:
    root = ElementTree.parse(SITE / name).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox")
    assert not [element for element in root.iter() if element.tag.endswith(("script", "foreignObject", "image"))]


def test_icon_is_an_icon() -> None:
    """Browsers ask for /favicon.ico by themselves: an icon directory with one PNG."""
    data = (SITE / "favicon.ico").read_bytes()
    kind, count, width, height, size, offset = struct.unpack_from("<2xHHBB6xII", data)
    assert (kind, count, width, height) == (1, 1, 32, 32)
    assert data[offset : offset + 8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) == offset + size


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str) -> None:
    colours = read_colours()[scheme]
    for text in ("ink", "faint", "accent", "signal"):
        for ground in ("ground", "raised"):
            low, high = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


# --- true to the code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", html_tables.TABLES)
def test_tables_are_those_of_the_code(name: str) -> None:
    page = (SITE / name).read_text("utf-8")
    assert page == html_tables.fill(page, html_tables.TABLES[name]), "run: python -m tests.html_tables"


def test_a_table_on_another_page_is_an_error() -> None:
    """What is written between markers on a page that nobody fills would never be compared."""
    for name in PAGES:
        found = re.findall(r"<!-- ([a-z-]+):begin -->", (SITE / name).read_text("utf-8"))
        assert found == list(html_tables.TABLES.get(name, ()))


def test_every_setting_has_its_row() -> None:
    assert set(OPTIONS) <= set(read_page("settings.html").ids())


def test_every_setting_of_gunicorn_stands_once() -> None:
    """gunicorn is asked for its settings, and the page for what becomes of each."""
    from gunicorn.config import KNOWN_SETTINGS

    known = sorted(setting.name for setting in KNOWN_SETTINGS)
    lists = (
        html_gunicorn.names_that_differ,
        html_gunicorn.names_that_mean_the_same,
        html_gunicorn.names_without_effect,
        html_gunicorn.names_refused,
    )
    assert sorted(name for names in lists for name in names()) == known
    assert not html_gunicorn.OWN & set(known)
    text = (SITE / "gunicorn.html").read_text("utf-8")
    assert [name for name in known if f'id="{name}"' not in text and f'"settings.html#{name}"' not in text] == []


def test_every_word_of_forwarded_fields_has_its_row() -> None:
    page = read_page("proxies.html")
    assert [text for text in page.texts["th"] if text in FORWARDED_FIELDS] == list(FORWARDED_FIELDS)
    fields = " ".join(page.texts["td"]).lower()
    assert all(name.lower() in fields for name, _ in SECURE_SCHEME_HEADERS)


def test_every_preset_is_shown() -> None:
    words = re.findall(r"--access-logformat ([a-z]+)", " ".join(read_page("logs.html").texts["dt"]))
    assert words == list(PRESETS)


def test_every_hook_has_its_row() -> None:
    page = read_page("processes.html")
    assert set(HOOKS) <= set(page.ids())
    shown = {text.partition("(")[0] for text in page.texts["dt"]}
    assert set(HOOKS) <= shown


def test_a_page_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="mistakes:begin"):
        html_tables.fill("<!-- mistakes:end -->\n", html_tables.TABLES["settings.html"])


@pytest.mark.parametrize("name", PAGES)
def test_options_that_are_mentioned_exist(name: str) -> None:
    known = {flag for param in build_command().params if isinstance(param, click.Option) for flag in param.opts}
    known |= {flag for command in COMMANDS for flag in flags_of(command)}
    assert set(find_flags(read_page(name))) <= known


def flags_of(command: str) -> set[str]:
    """The options that a sub-command takes."""
    params: list[click.Parameter] = import_module(COMMANDS[command][0]).build_command().params
    return {"--help", *(flag for param in params if isinstance(param, click.Option) for flag in param.opts)}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_sub_commands_exist(command: str) -> None:
    lines = [
        line
        for name in PAGES
        for text in read_page(name).texts.get("code", [])
        for line in re.findall(rf"^(?:\$ )?epollwsgi {command} .*", text, re.MULTILINE)
    ]
    assert lines
    flags = {word for line in lines for word in shlex.split(line) if word.startswith("-")}
    assert flags <= flags_of(command)


def test_flags_are_found() -> None:
    assert {"--static", "--allow-source", "--print-config", "-b"} <= set(find_flags(read_page("start.html")))


def find_flags(page: Page) -> list[str]:
    """What looks like an option in a command that starts the server, or stands by itself."""
    commands = page.texts.get("code", []) + page.texts.get("dt", [])
    lines = [
        line
        for text in commands
        for line in text.replace(" \\\n", " ").splitlines()
        if line.startswith(("epollwsgi", "-"))
    ]
    return [flag for line in lines for flag in re.findall(r"(?<!\S)--?[a-z][a-z_-]*", line)]


# --- served -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(start_module_server: ServerFactory) -> Server:
    return start_module_server("./html", cwd=ROOT)


def get(server: Server, path: str) -> tuple[int, str, bytes]:
    """Status, Content-Type and body of a GET."""
    with Client(server.address) as client:
        response = client.request(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return response.status, response.get("Content-Type") or "", response.body


@pytest.mark.parametrize(
    ("path", "name", "media_type"),
    [
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/style.css", "style.css", "text/css; charset=utf-8"),
        ("/logo.svg", "logo.svg", "image/svg+xml"),
        ("/favicon.ico", "favicon.ico", "image/"),
        ("/settings", "settings.html", "text/html; charset=utf-8"),
        ("/how.html", "how.html", "text/html; charset=utf-8"),
    ],
)
def test_files_are_served(site: Server, path: str, name: str, media_type: str) -> None:
    status, content_type, body = get(site, path)
    assert (status, body) == (200, (SITE / name).read_bytes())
    assert content_type.startswith(media_type)


@pytest.mark.parametrize("path", ["/app", "/missing", "/a/b/c", "/missing.png"])
def test_what_is_missing_gets_the_page(site: Server, path: str) -> None:
    assert get(site, path)[::2] == (404, (SITE / "404.html").read_bytes())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.mark.parametrize("name", PAGES)
def test_page_in_a_browser(site: Server, browser: Browser, name: str) -> None:
    """Without script: every resource loads, nothing is complained about, no page is wider than its window."""
    for width, dark in ((320, True), (390, False), (820, True), (1400, False)):
        tab = browser.open(f"{site.url}/{name}", width=width, dark=dark, script=False)
        assert tab.failures == []
        assert all(url.startswith(site.url) for url in tab.requests.values())
        assert len(tab.requests) >= 3
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        ground = tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ground')").strip()
        assert ground == read_colours()["dark" if dark else "light"]["ground"]
        tab.close()


def test_missing_page_in_a_browser(site: Server, browser: Browser) -> None:
    """At any depth the page for what is missing finds its style and its image."""
    tab = browser.open(f"{site.url}/no/such/page")
    assert [failure for failure in tab.failures if "/no/such/page" not in failure] == []
    assert sorted(urlsplit(url).path for url in tab.requests.values()) == ["/logo.svg", "/no/such/page", "/style.css"]
    tab.close()
