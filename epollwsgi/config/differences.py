"""Where a setting of gunicorn's name means or does something else here: one or two sentences each, with the reason.

Shown by `epollwsgi --help-setting NAME` and on the page "Coming from gunicorn". Knows no value and no source.
"""

from __future__ import annotations

from typing import Final

# name -> what is different, and why. Names that are missing mean here what they mean in gunicorn 27.
DIFFERENCES: Final = {
    "config": "Besides Python files in gunicorn's format there are TOML files; ./epollwsgi.toml is looked for before "
    "./gunicorn.conf.py, and [tool.epollwsgi] of ./pyproject.toml is read before either.",
    "wsgi_app": "A directory may be named too, with a slash in it: a static site. A module without an attribute is "
    "searched for app, application and create_app, not for application alone.",
    "check_config": "The exit code tells what is wrong: 1 a setting, 2 the command line, 3 an application that does "
    "not load, 4 an attribute that is not there. gunicorn has 1 for most of it.",
    "print_config": "What is printed is TOML that can be read back with -c, and each value names its source.",
    "umask": "Unset: files get the modes that the process inherited. In gunicorn it is 0, so that new files may be "
    "written by everyone.",
    "bind": "The path of a unix socket takes ?mode=660, and a file in its place that is no socket is left alone. The "
    "same address twice is a mistake.",
    "workers": "The word auto is as many as CPUs may be used, which affinity and a container's quota decide.",
    "worker_class": "There is one kind of worker: gthread names it, sync means it with threads = 1. Workers of "
    "gevent, eventlet, tornado and ASGI are refused, because the application would not run as it expects.",
    "threads": "8 instead of 1, as one slow call must not hold up the others. A settings file of gunicorn's or "
    "GUNICORN_CMD_ARGS that name neither threads nor worker_class mean 1, so that code which never ran in threads is "
    "not exposed to them by a change of one word.",
    "worker_connections": "Three quarters of the descriptors that a process may have, instead of 1000: waiting "
    "connections cost no thread, so that nothing else limits them.",
    "max_requests": "The successor is started, and ready, before the worker goes; gunicorn starts it afterwards.",
    "preload_app": "HUP loads the application anew all the same: the master replaces itself as for USR2. In gunicorn "
    "it goes on with the code that was loaded first.",
    "reload": "The old workers finish their requests, and the page that shows code which does not load goes by itself "
    "once that is mended. It may stand beside preload_app.",
    "pidfile": "USR2 keeps the process id, so that there is no second master and no file that ends in .oldbin or .2.",
    "keepalive": "75 s instead of 2: an idle connection costs neither a thread nor a process, and proxies and "
    "browsers that find theirs closed must connect again. It holds for every kind of worker.",
    "timeout": "It is counted for each request until the application starts its response; the client gets 504, other "
    "requests of the worker go on. In gunicorn a silent worker is killed with all that it was doing; here that is for "
    "a worker whose loop hangs.",
    "graceful_timeout": "It is the limit of the whole stop. INT and QUIT do not wait for it: they stop at once.",
    "limit_request_line": "8190 instead of 4094, and more is allowed: what other servers take by default. 0 leaves "
    "it to limit_request_head, which limits the whole head.",
    "limit_request_fields": "0 leaves it to limit_request_head; in gunicorn that, and what is above 32768, is 32768.",
    "limit_request_field_size": "0 leaves it to limit_request_head; in gunicorn there is no limit then.",
    "tmp_upload_dir": "It can be given on the command line, and holds responses that wait for slow readers too.",
    "sendfile": "On unless it is turned off. The environment variable SENDFILE is not read; EPOLLWSGI_SENDFILE is.",
    "errorlog": "Lines hold the id of their request where they belong to one.",
    "accesslog": "auto: short lines where standard output is a terminal, and none elsewhere. In gunicorn there are "
    "none unless it is set.",
    "access_log_format": "The words combined, json and dev name presets. An atom that does not exist ends the start; "
    "gunicorn writes - in its place.",
    "syslog_prefix": "Messages are named epollwsgi.NAME.error and epollwsgi.NAME.access, where gunicorn has gunicorn "
    "as the first word.",
    "forwarded_allow_ips": "Peers of a unix socket are believed where the list holds unix or *; gunicorn believes "
    "them always. What is believed is in forwarded_fields.",
    "forwarder_headers": "SCRIPT_NAME gets through, but is believed only where forwarded_fields holds prefix, and is "
    "not taken off the path: a proxy that leaves the prefix on the path needs script_name instead.",
    "secure_scheme_headers": "They are looked at while forwarded_fields holds proto, as it does by default.",
    "proxy_protocol": "Not yet here: anything but off is refused, because every connection would break.",
    "keyfile": "TLS is not yet here: it is refused, because plain HTTP would be served where TLS was meant.",
    "certfile": "TLS is not yet here: it is refused, because plain HTTP would be served where TLS was meant.",
    "ca_certs": "TLS is not yet here; without certfile it has no effect in gunicorn either.",
    "cert_reqs": "TLS is not yet here; without certfile it has no effect in gunicorn either.",
    "ciphers": "TLS is not yet here; without certfile it has no effect in gunicorn either.",
    "ssl_context": "TLS is not yet here; without certfile it has no effect in gunicorn either.",
    "on_starting": "It is not called again by the master that USR2 starts.",
    "when_ready": "It is not called again by the master that USR2 starts.",
    "on_reload": "With preload_app, where HUP replaces the master, pre_exec is called in its place.",
    "post_fork": "It runs when the worker has become the user of user and group already.",
    "post_worker_init": "worker.booted is True already.",
    "pre_request": "The request is answered with 500 if it raises.",
    "post_request": "It may run before the client has the last bytes: the application is done, the server still sends.",
}
