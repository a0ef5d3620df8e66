"""How many CPUs may be used: the affinity mask of a real process, quotas in made-up trees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from epollwsgi.process.cpus import quota_files, read_quota, usable_cpus
from tests.support import clean_environment

ALL = len(os.sched_getaffinity(0))
MOUNT = "30 24 0:26 {root} {point} ro,nosuid - cgroup2 cgroup rw,nsdelegate"


def make_tree(
    directory: Path, group: str, quotas: dict[str, str], *, root: str = "/", point: str = "/sys/fs/cgroup"
) -> str:
    """proc and sys as the kernel shows them: the group of this process, the mount, and a cpu.max in some groups."""
    (directory / "proc/self").mkdir(parents=True)
    (directory / "proc/self/cgroup").write_text(f"12:cpu,cpuacct:/elsewhere\n1:name=systemd:/x\n0::{group}\n")
    escaped = point.replace(" ", r"\040")
    (directory / "proc/self/mountinfo").write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "29 24 0:25 / /sys/fs/cgroup/cpu rw,shared:9 - cgroup cgroup rw,cpu\n"
        f"{MOUNT.format(root=root, point=escaped)}\n"
    )
    for name, text in quotas.items():
        path = directory / point.strip("/") / name / "cpu.max"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(directory)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000\n", float("inf")),
        ("200000 100000\n", 2.0),
        ("150000 100000", 1.5),
        ("1000 100000\n", 0.01),
        ("0 100000\n", 0.0),
        ("max", float("inf")),
        ("200000", float("inf")),
        ("200000 0", float("inf")),
        ("-1 100000", float("inf")),
        ("", float("inf")),
        ("some text", float("inf")),
    ],
)
def test_quota_is_read(tmp_path: Path, text: str, quota: float) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert read_quota(str(tmp_path / "cpu.max")) == quota
    assert read_quota(str(tmp_path / "missing")) == float("inf")
    assert read_quota(str(tmp_path)) == float("inf")


@pytest.mark.parametrize(
    ("group", "root", "names"),
    [
        ("/a/b", "/", ["a/b", "a", ""]),
        ("/", "/", [""]),
        ("/docker/1/a", "/docker/1", ["a", ""]),  # a container without a cgroup namespace
        ("/docker/1", "/docker/1", [""]),
        ("/docker/12", "/docker/1", [""]),
        ("/a", "/docker/1", [""]),
        ("/../b", "/", [""]),  # outside the namespace
        ("/a:b c", "/", ["a:b c", ""]),
        ("/a (deleted)", "/", ["a (deleted)", ""]),
    ],
)
def test_group_and_those_above_it_are_looked_at(tmp_path: Path, group: str, root: str, names: list[str]) -> None:
    tree = make_tree(tmp_path, group, {}, root=root)
    expected = ["/".join((f"{tree}/sys/fs/cgroup", *filter(None, [name]), "cpu.max")) for name in names]
    assert quota_files(tree) == expected


@pytest.mark.parametrize(
    ("quotas", "count"),
    [
        ({}, ALL),
        ({"a/b": "max 100000"}, ALL),
        ({"a/b": "50000 100000"}, 1),
        ({"a/b": "100 100000"}, 1),
        ({"a/b": "0 100000"}, 1),
        ({"a": "20000 100000", "a/b": "max 100000"}, 1),
        ({"a": "max 100000", "a/b": "100000 100000", "": "900000000 100000"}, 1),
        ({"other": "20000 100000"}, ALL),
        ({"a/b": f"{ALL}00000 100000"}, ALL),
        ({"a/b": f"{ALL}00001 100000"}, ALL),
        ({"a/b": f"{10 * ALL - 1} 10"}, ALL),  # rounded up
        ({"a/b": f"{10 * (ALL - 1)} 10"}, max(1, ALL - 1)),
    ],
)
def test_least_quota_counts_rounded_up(tmp_path: Path, quotas: dict[str, str], count: int) -> None:
    assert usable_cpus(make_tree(tmp_path, "/a/b", quotas)) == count


def test_mount_point_may_be_anywhere(tmp_path: Path) -> None:
    assert usable_cpus(make_tree(tmp_path, "/a", {"a": "1 100"}, point="/mnt/c groups")) == 1


@pytest.mark.parametrize("missing", ["proc/self/cgroup", "proc/self/mountinfo"])
def test_without_the_files_the_mask_counts(tmp_path: Path, missing: str) -> None:
    tree = make_tree(tmp_path, "/a", {"a": "1 100"})
    (tmp_path / missing).unlink()
    assert usable_cpus(tree) == ALL
    assert usable_cpus(f"{tree}/missing") == ALL


def test_affinity_mask_counts(tmp_path: Path) -> None:
    """Each size of mask, in a process of its own; the quota of this machine does not count in a made-up tree."""
    tree = make_tree(tmp_path, "/a", {"a": "max 100000"})
    code = (
        "import os, sys\nfrom epollwsgi.process.cpus import usable_cpus\nall = sorted(os.sched_getaffinity(0))\n"
        "for count in range(len(all), 0, -1):\n    os.sched_setaffinity(0, all[:count])\n"
        "    print(usable_cpus(sys.argv[1]), usable_cpus() <= count)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tree], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [f"{count} True" for count in range(ALL, 0, -1)], done.stderr


def test_this_machine_has_at_least_one() -> None:
    assert 1 <= usable_cpus() <= ALL
