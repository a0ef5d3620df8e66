"""Deployments of gunicorn as their projects document them, written anew from their settings: DEPLOYMENTS, REFUSED.

Each stands there as its files, its command line behind the word `gunicorn`, and its environment. ROOT is a directory
of the test, ANY a port that the system chooses, USER whoever runs the test; applications are small ones of the names
that the command lines use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

APPLICATION = """\
def {name}(environ, start_response):
    body = b"served"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
FACTORY = APPLICATION.replace("{name}", "_application") + "\ndef {name}():\n    return _application\n"
FLASK = """\
from flask import Flask

def create_app():
    app = Flask(__name__)

    @app.route("/")
    def index():
        return "served"

    return app

app = create_app()
"""
DJANGO_SETTINGS = """\
SECRET_KEY = "of the tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "mysite.urls"
"""
DJANGO_URLS = """\
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("served"))]
"""
DJANGO_WSGI = """\
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
"""


def application(path: str, name: str = "application", text: str = APPLICATION) -> dict[str, str]:
    """A module of that path, and the packages around it."""
    folders = path.split("/")[:-1]
    packages = {"/".join([*folders[: depth + 1], "__init__.py"]): "" for depth in range(len(folders))}
    return packages | {path: text.replace("{name}", name)}


@dataclass(frozen=True)
class Deployment:
    """One way in which a project starts gunicorn.

    settings: some of what --print-config must show, as TOML has it.  ignored: names in the one warning.
    notes: parts of what the banner notes.  writes: files that a request writes to, and a part of what.
    """

    name: str
    line: str
    files: Mapping[str, str]
    settings: Mapping[str, object]
    environ: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    writes: Mapping[str, str] = field(default_factory=dict)


SYNC_NOTE = "threads = 1 ("

DEPLOYMENTS = [
    Deployment(
        "django-documentation",
        "mysite.wsgi -b 127.0.0.1:ANY",
        {
            "mysite/__init__.py": "",
            "mysite/settings.py": DJANGO_SETTINGS,
            "mysite/urls.py": DJANGO_URLS,
            "mysite/wsgi.py": DJANGO_WSGI,
        },
        {"threads": 8, "workers": 1},
    ),
    Deployment(
        "flask-documentation",
        "-w 2 -b 127.0.0.1:ANY hello:create_app()",
        {"hello.py": FLASK},
        {"workers": 2, "threads": 8},
    ),
    Deployment(
        "heroku-procfile",
        "shop.wsgi --log-file -",
        application("shop/wsgi.py"),
        {"workers": 2, "bind": ["0.0.0.0:0"], "errorlog": "-"},
        environ={"PORT": "ANY", "WEB_CONCURRENCY": "2", "DYNO": "web.1"},
    ),
    Deployment(
        "heroku-python-starter",
        "--config gunicorn.conf.py gettingstarted.wsgi",
        {
            **application("gettingstarted/wsgi.py"),
            "gunicorn.conf.py": """\
import os

# The platform ends a request after half a minute, and a dyno as long after the first signal.
timeout = 20
graceful_timeout = 20
worker_class = "gthread"
threads = 5
max_requests = 1000
max_requests_jitter = 50
worker_tmp_dir = "/dev/shm"
keepalive = 100
preload_app = True
forwarded_allow_ips = "*"
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
access_log_format = '%(t)s "%(r)s" %(s)s %(b)s "%({Referer}i)s" "%({User-Agent}i)s" %(M)sms'
accesslog = "-" if "DYNO" not in os.environ else None
""",
        },
        {
            "bind": ["0.0.0.0:0"],
            "workers": 3,
            "threads": 5,
            "timeout": 20,
            "keepalive": 100,
            "preload_app": True,
            "max_requests_jitter": 50,
            "forwarded_allow_ips": ["*"],
            "secure_scheme_headers": {"X-FORWARDED-PROTO": "https"},
        },
        environ={"PORT": "ANY", "WEB_CONCURRENCY": "3", "DYNO": "web.1"},
        ignored=("worker_tmp_dir",),
    ),
    Deployment(
        "heroku-nginx-buildpack",
        "-c config/gunicorn.conf.py app:app",
        {
            **application("app.py", "app"),
            "config/gunicorn.conf.py": """\
def when_ready(server):
    # The proxy starts once this file is there.
    open("ROOT/app-initialized", "w").close()

bind = "unix://ROOT/nginx.socket"
workers = 2
""",
        },
        {"bind": ["unix:ROOT/nginx.socket"], "workers": 2, "threads": 1},
        notes=(SYNC_NOTE,),
    ),
    Deployment(
        "digitalocean-django-unit",
        "--access-logfile - --workers 3 --bind unix:ROOT/gunicorn.sock myproject.wsgi:application",
        application("myproject/wsgi.py"),
        {"accesslog": "-", "workers": 3, "bind": ["unix:ROOT/gunicorn.sock"], "threads": 8},
    ),
    Deployment(
        "digitalocean-flask-unit",
        "--workers 3 --bind unix:ROOT/myproject.sock -m 007 wsgi:app",
        {"wsgi.py": FLASK},
        {"workers": 3, "umask": 0o007},
    ),
    Deployment(
        "cookiecutter-django-start",
        "config.wsgi --bind 0.0.0.0:ANY --chdir=ROOT",
        application("config/wsgi.py"),
        {"bind": ["0.0.0.0:0"], "chdir": "ROOT"},
    ),
    Deployment(
        "airflow-webserver",
        "--workers 2 --worker-class sync --timeout 120 --bind 127.0.0.1:ANY --name airflow-webserver "
        "--pid ROOT/airflow-webserver.pid --config python:airflow.www.gunicorn_config --access-logfile - "
        "--error-logfile - --preload --reload-engine poll airflow.www.app:cached_app()",
        {
            **application("airflow/www/app.py", "cached_app", FACTORY),
            "airflow/www/gunicorn_config.py": """\
def post_worker_init(_):
    # A worker gets a name that the monitor looks for.
    import airflow.www.app
    airflow.www.app.is_ready = True

def on_starting(server):
    server.log.info("a webserver of %s workers", server.cfg.workers)
""",
        },
        {
            "workers": 2,
            "worker_class": "sync",
            "threads": 1,
            "timeout": 120,
            "proc_name": "airflow-webserver",
            "pidfile": "ROOT/airflow-webserver.pid",
            "preload_app": True,
        },
        notes=(SYNC_NOTE,),
    ),
    Deployment(
        "superset-run-server",
        "--bind 0.0.0.0:ANY --access-logfile - --error-logfile - --workers 1 --worker-class gthread --threads 20 "
        "--log-level info --timeout 60 --keep-alive 2 --max-requests 0 --max-requests-jitter 0 "
        "--limit-request-line 0 --limit-request-field_size 0 superset.app:create_app()",
        application("superset/app.py", "create_app", FACTORY),
        {"threads": 20, "keepalive": 2, "worker_class": "gthread", "timeout": 60, "max_requests": 0},
    ),
    Deployment(
        "netbox-unit",
        "--pid ROOT/netbox.pid --pythonpath ROOT/netbox --config ROOT/gunicorn.py netbox.wsgi",
        {
            **{f"netbox/{path}": text for path, text in application("netbox/wsgi.py").items()},
            "gunicorn.py": """\
# The address that the proxy knows, and 2n+1 workers for n cores.
bind = '127.0.0.1:ANY'
workers = 2
threads = 3
timeout = 120
max_requests = 5000
max_requests_jitter = 500
""",
        },
        {"threads": 3, "workers": 2, "max_requests": 5000, "pythonpath": "ROOT/netbox", "pidfile": "ROOT/netbox.pid"},
    ),
    Deployment(
        "wagtail-image",
        "bakery.wsgi:application",
        application("bakery/wsgi.py"),
        {"bind": ["0.0.0.0:0"]},
        environ={"PORT": "ANY", "PYTHONUNBUFFERED": "1"},
    ),
    Deployment(
        "redash-server",
        "-b 127.0.0.1:ANY --name redash -w4 redash.wsgi:app --max-requests 1000 --max-requests-jitter 100 --timeout 60",
        application("redash/wsgi.py", "app"),
        {"workers": 4, "proc_name": "redash", "max_requests": 1000, "max_requests_jitter": 100},
    ),
    Deployment(
        "frappe-bench",
        "-b 127.0.0.1:ANY -w 2 --max-requests 5000 --max-requests-jitter 500 -t 120 frappe.app:application --preload",
        application("frappe/app.py"),
        {"workers": 2, "timeout": 120, "preload_app": True},
    ),
    Deployment(
        "cloud-run-image",
        "--bind :ANY --workers 1 --threads 8 --timeout 0 main:app",
        {"main.py": FLASK},
        {"bind": ["0.0.0.0:0"], "timeout": 0, "threads": 8},
    ),
    Deployment(
        "azure-app-service",
        "--bind=0.0.0.0:ANY --timeout 600 --access-logfile - --error-logfile - --chdir=ROOT app:app",
        application("app.py", "app"),
        {"timeout": 600, "chdir": "ROOT", "accesslog": "-", "errorlog": "-"},
    ),
    Deployment(
        "elastic-beanstalk-procfile",
        "--bind 127.0.0.1:ANY --workers=1 --threads=15 application:application",
        application("application.py"),
        {"threads": 15, "workers": 1},
    ),
    Deployment(
        "render-start-command",
        "app:app",
        application("app.py", "app"),
        {"bind": ["0.0.0.0:0"], "workers": 2, "forwarded_allow_ips": ["*"]},
        environ={"PORT": "ANY", "WEB_CONCURRENCY": "2", "FORWARDED_ALLOW_IPS": "*"},
    ),
    Deployment(
        "gunicorn-cmd-args",
        "app:app",
        application("app.py", "app"),
        {"bind": ["127.0.0.1:0"], "workers": 3, "threads": 1},
        environ={"GUNICORN_CMD_ARGS": "--bind=127.0.0.1:ANY --workers=3"},
        notes=(SYNC_NOTE,),
    ),
    Deployment(
        "gunicorn-example-file",
        "-c example_config.py test:app",
        {
            **application("test.py", "app"),
            "example_config.py": """\
bind = '127.0.0.1:ANY'
backlog = 2048
workers = 1
worker_class = 'sync'
worker_connections = 1000
timeout = 30
keepalive = 2
spew = False
daemon = False
raw_env = ['DJANGO_SECRET_KEY=something', 'SPAM=eggs']
pidfile = None
umask = 0
user = None
group = None
tmp_upload_dir = None
errorlog = '-'
loglevel = 'info'
accesslog = '-'
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
proc_name = None

def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)

def pre_fork(server, worker):
    pass

def pre_exec(server):
    server.log.info("Forked child, re-executing.")

def when_ready(server):
    server.log.info("Server is ready. Spawning workers")

def worker_int(worker):
    worker.log.info("worker received INT or QUIT signal")

    import threading, sys, traceback
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, stack in sys._current_frames().items():
        worker.log.debug("%s: %s", names.get(ident), "".join(traceback.format_stack(stack)))

def worker_abort(worker):
    worker.log.info("worker received SIGABRT signal")

def ssl_context(conf, default_ssl_context_factory):
    import ssl
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
""",
        },
        {
            "threads": 1,
            "worker_connections": 1000,
            "keepalive": 2,
            "umask": 0,
            "raw_env": ["DJANGO_SECRET_KEY=something", "SPAM=eggs"],
            "pidfile": "",
            "accesslog": "-",
        },
        notes=(SYNC_NOTE,),
    ),
    Deployment(
        "tiangolo-image-file",
        "-c ROOT/gunicorn_conf.py -k gthread app.main:app",
        {
            **application("app/main.py", "app"),
            "gunicorn_conf.py": """\
import json
import multiprocessing
import os

workers_per_core_str = os.getenv("WORKERS_PER_CORE", "1")
max_workers_str = os.getenv("MAX_WORKERS")
use_max_workers = int(max_workers_str) if max_workers_str else None
web_concurrency_str = os.getenv("WEB_CONCURRENCY", None)
host = os.getenv("HOST_NAME", "127.0.0.1")
port = os.getenv("PORT_NUMBER", "ANY")
bind_env = os.getenv("BIND", None)
use_loglevel = os.getenv("LOG_LEVEL", "info")
use_bind = bind_env if bind_env else f"{host}:{port}"

cores = multiprocessing.cpu_count()
default_web_concurrency = float(workers_per_core_str) * cores
if web_concurrency_str:
    web_concurrency = int(web_concurrency_str)
else:
    web_concurrency = max(int(default_web_concurrency), 2)
    if use_max_workers:
        web_concurrency = min(web_concurrency, use_max_workers)
accesslog_var = os.getenv("ACCESS_LOG", "-")
use_accesslog = accesslog_var or None
errorlog_var = os.getenv("ERROR_LOG", "-")
use_errorlog = errorlog_var or None
graceful_timeout_str = os.getenv("GRACEFUL_TIMEOUT", "120")
timeout_str = os.getenv("TIMEOUT", "120")
keepalive_str = os.getenv("KEEP_ALIVE", "5")

loglevel = use_loglevel
workers = web_concurrency
bind = use_bind
errorlog = use_errorlog
worker_tmp_dir = "/dev/shm"
accesslog = use_accesslog
graceful_timeout = int(graceful_timeout_str)
timeout = int(timeout_str)
keepalive = int(keepalive_str)

log_data = {"loglevel": loglevel, "workers": workers, "bind": bind, "host": host, "port": port}
print(json.dumps(log_data))
""",
        },
        {"workers": 1, "threads": 8, "graceful_timeout": 120, "timeout": 120, "keepalive": 5, "loglevel": "info"},
        environ={"WORKERS_PER_CORE": "0.5", "MAX_WORKERS": "1"},
        ignored=("worker_tmp_dir",),
    ),
    Deployment(
        "docker-flask-example",
        "-c python:config.gunicorn hello.app:create_app()",
        {
            **application("hello/app.py", "create_app", FACTORY),
            "config/__init__.py": "",
            "config/gunicorn.py": """\
import multiprocessing
import os

def as_bool(text):
    return text.lower() in ("true", "yes", "1")

bind = f"0.0.0.0:{os.getenv('PORT', '8000')}"
accesslog = "-"
access_log_format = "%(h)s %(l)s %(u)s %(t)s '%(r)s' %(s)s %(b)s '%(f)s' '%(a)s' in %(D)sµs"
workers = int(os.getenv("WEB_CONCURRENCY", multiprocessing.cpu_count() * 2))
threads = int(os.getenv("PYTHON_MAX_THREADS", 1))
reload = as_bool(os.getenv("WEB_RELOAD", "false"))
timeout = int(os.getenv("WEB_TIMEOUT", 120))
""",
        },
        {"bind": ["0.0.0.0:0"], "workers": 2, "threads": 1, "reload": False, "timeout": 120},
        environ={"PORT": "ANY", "WEB_CONCURRENCY": "2"},
    ),
    Deployment(
        "prometheus-multiprocess",
        "-c gunicorn_conf.py -b 127.0.0.1:ANY metered:app",
        {
            **application("metered.py", "app"),
            "fake_prometheus.py": "def mark_process_dead(pid):\n    open(f'dead-{pid}', 'w').close()\n",
            "gunicorn_conf.py": """\
from fake_prometheus import mark_process_dead

def child_exit(server, worker):
    mark_process_dead(worker.pid)
""",
        },
        {"threads": 1},
        notes=(SYNC_NOTE,),
    ),
    Deployment(
        "sentry-sdk-after-the-fork",
        "-c conf/live.py -u USER app:app",
        {
            **application("app.py", "app"),
            "base_conf.py": "workers = 2\nthreads = 4\nworker_class = 'gthread'\n",
            "conf/live.py": """\
from base_conf import *
import os

bind = ["127.0.0.1:ANY", "unix:ROOT/app.sock"]
raw_env = ["ENVIRONMENT=" + os.environ.get("ENVIRONMENT", "live")]
logger_class = "base_logging.Logger"
enable_stdio_inheritance = True
control_socket_disable = True

def post_fork(server, worker):
    os.environ["WORKER_AGE"] = str(worker.age)
""",
        },
        {
            "bind": ["127.0.0.1:0", "unix:ROOT/app.sock"],
            "workers": 2,
            "threads": 4,
            "raw_env": ["ENVIRONMENT=live"],
            "user": "USER",
        },
        ignored=("logger_class", "enable_stdio_inheritance"),
    ),
    Deployment(
        "logging-dictionary",
        "-c logging_conf.py -b 127.0.0.1:ANY -w 1 --threads 2 app:app",
        {
            **application("app.py", "app"),
            "logging_conf.py": """\
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "errors": {"class": "logging.FileHandler", "formatter": "plain", "filename": "ROOT/error.log"},
        "requests": {"class": "logging.FileHandler", "formatter": "plain", "filename": "ROOT/access.log"},
    },
    "root": {"level": "WARNING", "handlers": ["errors"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["errors"], "propagate": False},
        "gunicorn.access": {"level": "INFO", "handlers": ["requests"], "propagate": False},
    },
}
""",
        },
        {"workers": 1, "threads": 2},
        writes={"access.log": '"GET / HTTP/1.1" 200 6'},
    ),
    Deployment(
        "figures-and-syslog",
        "--statsd-host=127.0.0.1:8125 --statsd-prefix=shop --log-syslog --log-syslog-to udp://127.0.0.1:5514 "
        "--log-syslog-prefix shop --log-syslog-facility local3 --access-logfile ROOT/access.log --log-level warning "
        "--access-logformat '%(h)s %(m)s %(U)s %(s)s' -b 127.0.0.1:ANY app:app",
        application("app.py", "app"),
        {"statsd_prefix": "shop", "syslog": True, "syslog_facility": "local3", "loglevel": "warning"},
        writes={"access.log": "127.0.0.1 GET / 200"},
    ),
    Deployment(
        "behind-an-ingress",
        "-c gunicorn.conf.py",
        {
            **application("shop/web.py", "app"),
            "gunicorn.conf.py": """\
import multiprocessing

wsgi_app = "shop.web:app"
bind = "127.0.0.1:ANY"
workers = min(multiprocessing.cpu_count() * 2 + 1, 3)
threads = 2
forwarded_allow_ips = "10.0.0.0/8,127.0.0.1"
forwarder_headers = "SCRIPT_NAME,REMOTE_USER"
limit_request_line = 8190
limit_request_field_size = 16380
http_protocols = "h1"
http_parser = "auto"
dirty_workers = 0
ssl_version = 5
proxy_protocol = False
permit_obsolete_folding = False
""",
        },
        {
            "wsgi_app": "shop.web:app",
            "forwarded_allow_ips": ["10.0.0.0/8", "127.0.0.1"],
            "forwarder_headers": ["SCRIPT_NAME", "REMOTE_USER"],
            "limit_request_line": 8190,
            "limit_request_field_size": 16380,
        },
    ),
]

# Deployments that this server cannot take over: the line, their file, the exit code, what is said.
REFUSED: list[tuple[str, str, str, int, str]] = [
    (
        "saleor-api",
        "--bind :ANY --workers 4 --worker-class saleor.asgi.gunicorn_worker.UvicornWorker app:app",
        "",
        1,
        "WSGI applications, not ASGI ones",
    ),
    (
        "fastapi-documentation",
        "app:app --workers 4 --worker-class uvicorn.workers.UvicornWorker --bind 0.0.0.0:ANY",
        "",
        1,
        "not ASGI ones",
    ),
    (
        "tiangolo-meinheld-image",
        "-k egg:meinheld#gunicorn_worker -c conf.py app:app",
        "workers = 2\n",
        1,
        "which replaces that one",
    ),
    ("flask-gevent", "-k gevent app:app", "", 1, "green threads"),
    ("flask-socketio-eventlet", "--worker-class eventlet -w 1 app:app", "", 1, "green threads"),
    ("tls-on-the-command-line", "--certfile=server.crt --keyfile=server.key app:app", "", 1, "no TLS yet"),
    (
        "tls-in-the-file",
        "-c conf.py app:app",
        "bind = '0.0.0.0:443'\nkeyfile = '/etc/ssl/k.pem'\ncertfile = '/etc/ssl/c.pem'\n",
        1,
        "conf.py:2: keyfile = '/etc/ssl/k.pem': ",
    ),
    (
        "stunnel-in-front",
        "-c conf.py app:app",
        "proxy_protocol = True\nproxy_allow_ips = '*'\n",
        1,
        "the PROXY protocol",
    ),
    ("uwsgi-pass", "--protocol uwsgi -b unix:ROOT/x.sock app:app", "", 1, "proxy_pass, not uwsgi_pass"),
    ("http2-alone", "--http-protocols h2 app:app", "", 1, "HTTP/1.1"),
    (
        "dirty-workers",
        "-c conf.py app:app",
        "dirty_apps = ['shop.tasks:Model']\ndirty_workers = 2\n",
        1,
        "dirty workers",
    ),
    (
        "pyramid-paste",
        "--paste production.ini -b 127.0.0.1:ANY",
        "",
        2,
        "no PasteDeploy files here; name the application",
    ),
]
