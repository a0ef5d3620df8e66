"""Who the workers run as: user and group from the settings, and giving up the rights of root for good.

The master finds the identity before anything is bound, each worker takes it after.  What workers must write themselves
(unix sockets, logs) is given to it by `Identity.own`.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass

from epollwsgi.config.settings import Settings
from epollwsgi.errors import ConfigError
from epollwsgi.logs.error_log import ErrorLog

NO_CHANGE = 2**32 - 1  # what -1 is as an id: the system calls take it for "leave it"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group to run as.  name: of the user; '' where the number has none."""

    name: str
    uid: int
    gid: int

    def drop(self, initgroups: bool) -> None:
        """Become it, for good. Raises ConfigError.

        initgroups: take the supplementary groups of the user too; else none is left but the group itself.
        A signal asked for at the parent's death (PR_SET_PDEATHSIG) is lost by this, prctl(2).
        """
        try:
            os.setgid(self.gid)
            if initgroups:
                os.initgroups(self.name, self.gid)
            else:
                os.setgroups([self.gid])
            os.setuid(self.uid)
        except OSError as error:
            raise ConfigError(f"cannot become {self}: {error.strerror}") from None
        if os.getresuid() != (self.uid,) * 3 or os.getresgid() != (self.gid,) * 3 or (self.uid and is_root_near()):
            raise ConfigError(f"cannot become {self}: the way back to root is open")

    def own(self, path: str) -> None:
        """Make it the owner of a socket or a file. Raises OSError.

        A link, or a file with a second name, stays as it is: whoever may write into the directory of a log could have
        any file of the system given to them.
        """
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if stat.S_ISSOCK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
                os.chown(f"/proc/self/fd/{fd}", self.uid, self.gid)
        finally:
            os.close(fd)

    def __str__(self) -> str:
        return f"user {self.name or self.uid} (uid {self.uid}, gid {self.gid})"


def is_root_near() -> bool:
    """True if this process could become root (again); then it has."""
    try:
        os.setuid(0)
    except OSError:
        return False
    return True


def find_identity(settings: Settings) -> Identity | None:
    """What `user` and `group` mean; None where the workers stay what the master is. Raises ConfigError.

    A user without a group has the group of its entry in the password file.
    """
    own_uid, own_gid = os.geteuid(), os.getegid()
    uid = find_user(settings.user) if settings.user else own_uid
    entry = find_entry(uid)
    if settings.group:
        gid = find_group(settings.group)
    elif uid == own_uid:
        gid = own_gid
    elif entry is None:
        raise ConfigError(f"user = {settings.user!r}: this number has no name, so group must be set too")
    else:
        gid = entry.pw_gid
    if (uid, gid) == (own_uid, own_gid):
        return None
    if own_uid != 0:
        name, value = ("user", settings.user) if uid != own_uid else ("group", settings.group)
        raise ConfigError(f"{name} = {value!r}: only root may change it, and this process has uid {own_uid}")
    if settings.initgroups and entry is None:
        raise ConfigError(f"initgroups: user = {settings.user!r} is a number without a name, so it has no groups")
    return Identity(entry.pw_name if entry else "", uid, gid)


def find_entry(uid: int) -> pwd.struct_passwd | None:
    """The entry in the password file."""
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def find_user(text: str) -> int:
    """The id of a user that is named or a number. Raises ConfigError."""
    if is_id(text):
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ConfigError(f"user = {text!r}: no such user") from None


def find_group(text: str) -> int:
    """The id of a group that is named or a number. Raises ConfigError."""
    if is_id(text):
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"group = {text!r}: no such group") from None


def is_id(text: str) -> bool:
    """True for the number of a user or group."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < NO_CHANGE


def warn_of_root(settings: Settings, log: ErrorLog) -> None:
    """One warning where workers are root and nobody said that they should be."""
    if os.geteuid() == 0 and not settings.user:
        log.warning("the workers run as root: name another user with --user, or root itself if that is meant")
