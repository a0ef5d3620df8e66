"""`python -m tests.alone`: the command with a worker only, and no master that would replace it.

For tests of what one worker does after a request of it was stuck; everything else is as in `python -m epollwsgi`.
"""

from __future__ import annotations

import os
import sys

from epollwsgi import cli, importer
from epollwsgi.listener import open_listeners
from epollwsgi.logs.opening import open_logs
from epollwsgi.process.worker import Worker


def main() -> int:
    found = cli.parse_command(sys.argv[1:])
    assert found is not None
    plan = cli.make_plan(*cli.load_all(*found))
    error_log, access_log = open_logs(plan.settings)
    listeners = open_listeners(plan.settings)
    application = importer.load_checked(plan.application_name, plan.settings)
    sys.stderr.write(plan.describe([str(listener) for listener in listeners]))
    return Worker(plan.settings, application, listeners, error_log, access_log).run()


if __name__ == "__main__":
    os._exit(main())
