"""python -m tests.static.sandboxed ERROR DIRECTORY: serve files where openat2 is refused; 77 if that cannot be done.

A seccomp filter makes the system call fail with the error number, as sandboxes do. Prints what was logged and the
status of some paths. Run by test_beneath.
"""

from __future__ import annotations

import ctypes
import struct
import sys

from epollwsgi.config.values import StaticMount
from epollwsgi.static.beneath import SYS_OPENAT2, probe_openat2
from epollwsgi.static.handler import StaticHandler

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
FAIL, ALLOW = 0x00050000, 0x7FFF0000
PATHS = ("/a.txt", "/d/up", "/out", "/absolute", "/d/e/deep")


def refuse_openat2(error: int) -> bool:
    """From now on openat2 fails with this error in this process; False where seccomp is not to be had."""
    steps = (
        (LOAD, 0, 0, 0),  # the number of the system call
        (JUMP_IF_EQUAL, 0, 1, SYS_OPENAT2),
        (RETURN, 0, 0, FAIL | error),
        (RETURN, 0, 0, ALLOW),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    sock_fprog = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return not prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) and not prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, sock_fprog)


def main(error: int, directory: str) -> int:
    """Serve some paths and print what came of it."""
    if not refuse_openat2(error):
        return 77
    assert probe_openat2() == error
    handler = StaticHandler([StaticMount("/", directory)], alone=True, revalidate=1, log=print)
    handler.on_tick(1.0, b"")
    for path in PATHS:
        reply = handler.answer("GET", path, "", {})
        print(path, reply and reply.status)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
