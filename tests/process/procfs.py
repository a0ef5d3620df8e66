"""What the kernel tells of processes and sockets. proc(5)"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
TCP_LISTEN = "0A"
UNIX_ACCEPTS = "00010000"  # __SO_ACCEPTCON
TARGET_FD = re.compile(r"^tfd:\s+(\d+)", re.MULTILINE)


def read_proc(pid: int, name: str) -> bytes:
    """A file of a process; b'' where that has gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except GONE:
        return b""


def state_of(pid: int) -> str:
    """R, S, T, Z ...; '' where there is no such process."""
    return read_proc(pid, "stat").rpartition(b")")[2][1:2].decode()


def is_alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z", "X")


def children_of(pid: int) -> list[int]:
    """All children, those that have ended and were not reaped among them."""
    return [int(word) for word in read_proc(pid, f"task/{pid}/children").split()]


def descriptors(pid: int) -> dict[int, str]:
    """What each open descriptor refers to."""
    found = {}
    with suppress(*GONE):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(*GONE):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def descriptor_paths(pid: int) -> list[str]:
    return list(descriptors(pid).values())


def image_of(pid: int) -> bytes:
    """Changes with each execve: addresses that the kernel chose at random, and what the process was started with."""
    return read_proc(pid, "auxv")


def listening_sockets() -> dict[str, str]:
    """socket:[INODE], as descriptors show it, of all that listen -> address as the kernel writes it."""
    found = {}
    for line in [*read_lines("/proc/net/tcp"), *read_lines("/proc/net/tcp6")]:
        words = line.split()
        if words[3] == TCP_LISTEN:
            found[f"socket:[{words[9]}]"] = words[1]
    for line in read_lines("/proc/net/unix"):
        words = line.split()
        if words[3] == UNIX_ACCEPTS:
            found[f"socket:[{words[6]}]"] = words[7] if len(words) > 7 else ""
    return found


def read_lines(path: str) -> list[str]:
    """Without the heading."""
    try:
        return Path(path).read_text().splitlines()[1:]
    except FileNotFoundError:
        return []


def listening_socket(port: int) -> str:
    """Which socket listens at that port of 127.0.0.1."""
    [found] = [name for name, address in listening_sockets().items() if address == f"0100007F:{port:04X}"]
    return found


def is_accepting(pid: int) -> bool:
    """Whether one of its epolls watches a socket that listens: then it is a worker that serves."""
    table = descriptors(pid)
    watched: set[int] = set()
    for fd, name in table.items():
        if name == "anon_inode:[eventpoll]":
            watched.update(map(int, TARGET_FD.findall(read_proc(pid, f"fdinfo/{fd}").decode())))
    names = {table.get(fd, "") for fd in watched}
    return not names.isdisjoint(listening_sockets())
