"""Whether everybody who shares a database may write it, and the journal beside it.

SQLite keeps its journal in the database's directory, under the database's mode; whoever comes
after a killed process plays that journal back and removes it.  So all of a group need the right to
write file *and* directory, and to remove each other's files there.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from production.doctor.findings import Finding, error, note, ok, warning
from production.identity import current_user

CHECK = "permissions"
_ACL = "system.posix_acl_access"


def check_permissions(file: Path) -> Iterator[Finding]:
    """Of the existing database ``file``, links resolved, and its directory; raises OSError."""
    directory = file.parent
    of_file, of_directory = file.stat(), directory.stat()
    found = [
        *_own(file, directory),
        *_names(file, of_file),
        *_group(file, directory, of_file, of_directory),
    ]
    yield from found or [ok(CHECK, f"{current_user()} may write {file} and beside it")]


def _own(file: Path, directory: Path) -> Iterator[Finding]:
    user = current_user()
    if not os.access(file, os.R_OK | os.W_OK):
        what = f"{user} may not read and write {file} ({_mode(file)})"
        yield error(CHECK, what, f"Ask {_owner(file)} for: chmod g+rw {_quoted(file)}")
    if not os.access(directory, os.W_OK | os.X_OK):
        what = f"{user} may not write in {directory} ({_mode(directory)}), where the journal is"
        yield error(CHECK, what, f"Ask {_owner(directory)} for: chmod g+rwx {_quoted(directory)}")


def _names(file: Path, status: os.stat_result) -> Iterator[Finding]:
    if status.st_nlink > 1:
        what = f"{file} has {status.st_nlink} names (hard links): each would get its own journal"
        yield error(
            CHECK,
            what,
            f"Keep one; find them with: find {_quoted(file.parent)} -samefile {_quoted(file)}",
        )


def _group(
    file: Path, directory: Path, of_file: os.stat_result, of_directory: os.stat_result
) -> Iterator[Finding]:
    """Whether others can work there, as far as the modes tell."""
    if _has_acl(file) or _has_acl(directory):
        yield note(
            CHECK, f"access lists tell who may write {file}", f"See: getfacl {_quoted(file)}"
        )
        return
    if of_file.st_mode & stat.S_IWOTH:
        what = f"everybody on this host may write {file} ({_mode(file)})"
        yield warning(CHECK, what, f"chmod o-w {_quoted(file)}")
    shared = bool(of_file.st_mode & stat.S_IWGRP)
    if not shared:
        what = f"only {_owner(file)} may write {file} ({_mode(file)})"
        remedy = f"chmod g+rw {_quoted(file)}; chmod g+rwxs {_quoted(directory)}"
        yield note(CHECK, what, f"To share it with its group: {remedy}")
        return
    if not of_directory.st_mode & stat.S_IWGRP:
        what = f"the group may write {file}, but not in {directory} ({_mode(directory)})"
        yield warning(CHECK, f"{what}, where the journal is", f"chmod g+rwxs {_quoted(directory)}")
        return
    if of_file.st_gid != of_directory.st_gid:
        what = f"{file} and {directory} belong to different groups"
        yield warning(CHECK, what, f"chgrp --reference={_quoted(directory)} {_quoted(file)}")
    if of_directory.st_mode & stat.S_ISVTX:
        what = (
            f"{directory} is sticky ({_mode(directory)}): nobody but its owner can remove the "
            "journal that a killed process left behind"
        )
        yield warning(CHECK, what, f"chmod -t {_quoted(directory)}, or move the database elsewhere")
    elif not of_directory.st_mode & stat.S_ISGID:
        what = f"new files in {directory} will not belong to its group ({_mode(directory)})"
        yield note(CHECK, what, f"chmod g+s {_quoted(directory)}")


def _quoted(path: Path) -> str:
    """For a command that people copy."""
    return shlex.quote(str(path))


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError:
        return False


def _mode(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"
