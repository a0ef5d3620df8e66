"""Who the workers run as: names and numbers, what only root may do, and that there is no way back."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.config.settings import Settings
from epollwsgi.errors import ConfigError
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.sink import Sink
from epollwsgi.process.privileges import Identity, find_identity, warn_of_root
from tests.support import clean_environment

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
NOBODY = pwd.getpwnam("nobody")
DAEMON = grp.getgrnam("daemon")
UNNAMED = next(number for number in range(60_000, 65_000) if not {number} & {one.pw_uid for one in pwd.getpwall()})
# Somebody with supplementary groups, if the machine has such a user.
MEMBERS = sorted(
    {member for group in grp.getgrall() for member in group.gr_mem} & {one.pw_name for one in pwd.getpwall()}
)
MEMBER = pwd.getpwnam(next((name for name in MEMBERS if name != "root"), "nobody"))

PRELUDE = """
import json, os, sys
from epollwsgi.config.settings import Settings
from epollwsgi.errors import ConfigError
from epollwsgi.process.privileges import Identity, find_identity, warn_of_root

given = json.loads(sys.argv[1])
"""


def run(code: str, **given: Any) -> str:
    """What a child prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, json.dumps(given)],
        env=clean_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- what the settings mean -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"user": "no-such-user"}, "user = 'no-such-user': no such user"),
        ({"user": "4294967295"}, "user = '4294967295': no such user"),  # -1: would change nothing
        ({"user": "99999999999"}, "user = '99999999999': no such user"),
        ({"user": "-1"}, "user = '-1': no such user"),
        ({"user": "a\0b"}, r"user = 'a\x00b': no such user"),
        ({"user": "\u0661"}, "user = '\u0661': no such user"),
        ({"group": "no-such-group"}, "group = 'no-such-group': no such group"),
        ({"group": "4294967295"}, "group = '4294967295': no such group"),
        ({"user": "nobody", "group": "no-such-group"}, "group = 'no-such-group': no such group"),
        ({"user": str(UNNAMED)}, f"user = '{UNNAMED}': this number has no name, so group must be set too"),
    ],
)
def test_mistake_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_identity(Settings(**given))
    assert str(caught.value) == message


@pytest.mark.parametrize("given", [{}, {"initgroups": True}, {"user": str(os.geteuid())}, {"group": str(os.getegid())}])
def test_nothing_is_to_change(given: dict[str, Any]) -> None:
    assert find_identity(Settings(**given)) is None


@as_root
@pytest.mark.parametrize(
    ("user", "group", "found"),
    [
        ("nobody", "", ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)),
        (str(NOBODY.pw_uid), "", ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)),
        ("nobody", "daemon", ("nobody", NOBODY.pw_uid, DAEMON.gr_gid)),
        ("nobody", str(DAEMON.gr_gid), ("nobody", NOBODY.pw_uid, DAEMON.gr_gid)),
        (str(UNNAMED), "60123", ("", UNNAMED, 60123)),
        ("", "daemon", ("root", 0, DAEMON.gr_gid)),
        ("root", "daemon", ("root", 0, DAEMON.gr_gid)),
    ],
)
def test_names_and_numbers(user: str, group: str, found: tuple[str, int, int]) -> None:
    assert find_identity(Settings(user=user, group=group)) == Identity(*found)


@as_root
def test_supplementary_groups_need_a_name() -> None:
    with pytest.raises(ConfigError, match=rf"^initgroups: user = '{UNNAMED}' is a number without a name"):
        find_identity(Settings(user=str(UNNAMED), group="daemon", initgroups=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"user": "root"}, "user = 'root': only root may change it, and this process has uid {uid}"),
        ({"user": "root", "group": "root"}, "user = 'root': only root may change it, and this process has uid {uid}"),
        ({"group": "root"}, "group = 'root': only root may change it, and this process has uid {uid}"),
        ({"user": "{uid}"}, "None"),
        ({"user": "{uid}", "group": "{gid}", "initgroups": True}, "None"),
    ],
)
def test_others_than_root_change_nothing(given: dict[str, Any], message: str) -> None:
    printed = run(
        "if os.geteuid() == 0:\n    os.setgid(61234)\n    os.setuid(65534)\n"  # not the user's usual group
        "ids = {'uid': os.geteuid(), 'gid': os.getegid()}\n"
        "given = {name: value.format(**ids) if isinstance(value, str) else value for name, value in given.items()}\n"
        "try:\n    print(find_identity(Settings(**given)), ids['uid'])\n"
        "except ConfigError as error:\n    print(error, ids['uid'])\n",
        **given,
    )
    text, _, uid = printed.rpartition(" ")
    assert text == message.format(uid=uid)


# --- becoming it ----------------------------------------------------------------------------------------------------

DROP = """
os.setgroups([1, 2, 3])
find_identity(Settings(**given)).drop(given["initgroups"])
back = []
for call, arguments in ((os.setuid, (0,)), (os.setresuid, (0, 0, 0)), (os.setgid, (0,)), (os.setgroups, ([0],))):
    try:
        call(*arguments)
        back.append(call.__name__)
    except PermissionError:
        pass
print(json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups()), back]))
"""


@as_root
@pytest.mark.parametrize(
    ("user", "group", "initgroups", "uid", "gid", "groups"),
    [
        ("nobody", "", False, NOBODY.pw_uid, NOBODY.pw_gid, [NOBODY.pw_gid]),
        (str(UNNAMED), "daemon", False, UNNAMED, DAEMON.gr_gid, [DAEMON.gr_gid]),
        (
            *(MEMBER.pw_name, "daemon", True, MEMBER.pw_uid, DAEMON.gr_gid),
            sorted(os.getgrouplist(MEMBER.pw_name, DAEMON.gr_gid)),
        ),
    ],
)
def test_worker_becomes_it_for_good(
    user: str, group: str, initgroups: bool, uid: int, gid: int, groups: list[int]
) -> None:
    printed = run(DROP, user=user, group=group, initgroups=initgroups)
    assert json.loads(printed) == [[uid] * 3, [gid] * 3, groups, []]


@as_root
def test_group_alone_leaves_root_as_the_user() -> None:
    printed = run(
        "os.setgroups([1, 2])\nfind_identity(Settings(group='daemon')).drop(False)\n"
        "print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups()]))\n"
    )
    assert json.loads(printed) == [[0] * 3, [DAEMON.gr_gid] * 3, [DAEMON.gr_gid]]


def test_failure_is_one_clear_line() -> None:
    """A process without the right, such as one in a sandbox, which has another id already."""
    printed = run(
        "if os.geteuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    Identity('daemon', 1, 1).drop(False)\nexcept ConfigError as error:\n    print(error)\n"
    )
    assert printed == "cannot become user daemon (uid 1, gid 1): Operation not permitted"


@as_root
def test_way_back_is_noticed() -> None:
    """With the securebit no_setuid_fixup, capabilities(7), a change of user id takes no right away."""
    printed = run(
        "import ctypes\nassert ctypes.CDLL(None).prctl(28, 1 << 2, 0, 0, 0) == 0\n"  # PR_SET_SECUREBITS
        "try:\n    Identity('nobody', 65534, 65534).drop(False)\n    print('became it')\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    assert printed == "cannot become user nobody (uid 65534, gid 65534): the way back to root is open"


# --- files ----------------------------------------------------------------------------------------------------------


@as_root
def test_file_is_given_away_but_nothing_that_it_leads_to(tmp_path: Path) -> None:
    identity = Identity("nobody", NOBODY.pw_uid, DAEMON.gr_gid)
    for name in ("log", "target", "twice"):
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("target")
    os.link(tmp_path / "twice", tmp_path / "again")
    (tmp_path / "directory").mkdir()
    for name in ("log", "link", "twice", "directory"):
        identity.own(str(tmp_path / name))
    owners = {one.name: (one.lstat().st_uid, one.lstat().st_gid) for one in tmp_path.iterdir()}
    assert owners.pop("log") == (NOBODY.pw_uid, DAEMON.gr_gid)
    assert set(owners.values()) == {(0, 0)}
    with pytest.raises(FileNotFoundError):
        identity.own(str(tmp_path / "missing"))


# --- the warning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "is_warned"), [({}, True), ({"group": "daemon"}, True), ({"user": "root"}, False)])
def test_root_by_accident_is_warned_of(tmp_path: Path, given: dict[str, Any], is_warned: bool) -> None:
    warn_of_root(Settings(**given), ErrorLog(Sink(str(tmp_path / "log"), 2)))
    text = (tmp_path / "log").read_text()
    if is_warned and os.geteuid() == 0:
        assert text.count("\n") == 1
        assert "[WARNING] the workers run as root: name another user with --user" in text
    else:
        assert text == ""
