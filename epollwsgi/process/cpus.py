"""How many CPUs this process may use: `-w auto`. Called by the master; reads /proc and the cgroup files only."""

from __future__ import annotations

import math
import os
import re

ESCAPE = re.compile(r"\\([0-7]{3})")  # a space in a path of mountinfo, proc_pid_mountinfo(5)


def usable_cpus(root: str = "/") -> int:
    """The CPUs of the affinity mask, or what the cgroup's quota amounts to, rounded up, if that is less.

    root: where proc and sys lie.
    """
    quota = min((read_quota(path) for path in quota_files(root)), default=math.inf)
    count = len(os.sched_getaffinity(0))
    return count if quota >= count else max(1, math.ceil(quota))


def read_quota(path: str) -> float:
    """The CPUs that a cpu.max file allows; inf for all, or where there is no such file. Linux, cgroup-v2.rst."""
    quota, _, period = read(path).strip().partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return math.inf
    return int(quota) / int(period)


def quota_files(root: str) -> list[str]:
    """Path of cpu.max of the cgroup of this process and of each one above it: each may hold a limit."""
    line = next((line for line in read(f"{root}/proc/self/cgroup").splitlines() if line.startswith("0::/")), "")
    mount = find_mount(root)
    if not line or mount is None:
        return []
    hierarchy_root, mount_point = mount
    group, top = line.removeprefix("0::"), hierarchy_root.rstrip("/")
    # Of a container's own cgroup mount only what lies at or below its root is to be seen.
    inside = group[len(top) :] if f"{group}/".startswith(f"{top}/") else ""
    names = [name for name in inside.split("/") if name]
    if ".." in names:
        names = []
    return ["/".join((root + mount_point, *names[:depth], "cpu.max")) for depth in range(len(names), -1, -1)]


def find_mount(root: str) -> tuple[str, str] | None:
    """Of the cgroup2 file system: the group that is its root, and where it is mounted."""
    for line in read(f"{root}/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if right.startswith("cgroup2 ") and len(fields) >= 5:
            return unescape(fields[3]), unescape(fields[4])
    return None


def unescape(text: str) -> str:
    """A path as it is."""
    return ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def read(path: str) -> str:
    """Content of a small file; '' where it cannot be had."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
