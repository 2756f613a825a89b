"""One download of a file at a time, for all managers that share a data directory.

Who fetches a file leaves a note in a directory of theirs, which says who that is and where the
file will be.  Others wait, and when it is there, link it instead of fetching it once more.  The
note is a symbolic link: made as a whole or not at all, on network filesystems too, and by one only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from production.errors import file_trouble
from production.identity import Identity, is_alive, this_process
from production.staging.places import File

BEAT = 10.0  # seconds between two signs of life, which come with the file's blocks
_TRIES = 2  # to remove a note: that a handle is stale may be true for a moment only
SILENCE = 300.0  # seconds without one after which nobody is waited for any more


class BeingFetched(Exception):  # noqa: N818 - nothing is wrong
    """Somebody else is fetching the file."""


class Fetching:
    """The notes of one data directory; used by several threads at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._seen: dict[Path, tuple[str, int, float]] = {}  # note: text, its time, and since when
        self._made: dict[Path, Path] = {}  # by note: where somebody else has the file
        self._swept = False

    @contextmanager
    def alone(self, file: File, target: Path, owner: str) -> Iterator[Callable[[], None] | None]:
        """As long as it lasts, nobody else fetches the file.

        ``owner``: whose it is to be, of which there is one at a time; a note of the same one was
        left by somebody who has lost his claim.  Gives what is to be called all the while, or None
        when ``target`` is there already: linked, for somebody else has fetched it meanwhile.
        Raises BeingFetched, SpoolTrouble.
        """
        note = self._directory / _name(file)
        text = _text(target, owner)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not self._swept:
                self._swept = True
                self.sweep()
            self._leave(note, text, owner)
        except OSError as error:
            raise file_trouble(note, error) from None
        try:
            yield None if self._is_linked(note, target) else _beat(note)
        finally:
            for _ in range(_TRIES):
                with contextlib.suppress(OSError):
                    if os.readlink(note) == text:  # noqa: PTH115 - the text as it is
                        note.unlink()
                    break

    def _leave(self, note: Path, text: str, owner: str) -> None:
        while True:
            try:
                os.symlink(text, note)  # noqa: PTH211 - leads nowhere
                return
            except FileExistsError:
                pass
            try:
                theirs, changed = os.readlink(note), note.lstat().st_mtime_ns  # noqa: PTH115
            except FileNotFoundError:
                continue
            if theirs == text:
                return  # NFS asked twice, and the first time it was done
            if not self._is_over(note, theirs, changed, owner):
                raise BeingFetched
            _remove(note, theirs)

    def _is_over(self, note: Path, text: str, changed: int, owner: str) -> bool:
        """Whether the one who left the note is gone, or fetches in vain."""
        who, target, whose = _read(text)
        now = time.monotonic()
        if whose == owner:
            return True
        with self._lock:
            if target is not None:
                self._made[note] = target
            seen = self._seen.get(note)
            if seen is None or seen[:2] != (text, changed):
                seen = self._seen[note] = text, changed, now
        alive = None if who is None else is_alive(who.boot, who.pid, who.pid_start)
        return alive is False or now - seen[2] > SILENCE

    def _is_linked(self, note: Path, target: Path) -> bool:
        with self._lock:
            made = self._made.get(note)
            self._seen.pop(note, None)
        if made is None:
            return False
        try:
            os.link(made, target)
        except OSError:  # not fetched after all, used up, or no links here
            return False
        with self._lock:
            self._made.pop(note, None)
        return True

    def sweep(self) -> None:
        """Remove the notes of managers of this host that are dead."""
        try:
            with os.scandir(self._directory) as entries:
                notes = [Path(entry.path) for entry in entries]
        except FileNotFoundError:
            return
        for note in notes:
            with contextlib.suppress(OSError):
                text = os.readlink(note)  # noqa: PTH115
                who = _read(text)[0]
                if who and is_alive(who.boot, who.pid, who.pid_start) is False:
                    _remove(note, text)


def _name(file: File) -> str:
    place = hashlib.sha256(f"{file[0].place}\n{file[0].name}".encode()).hexdigest()
    return f"{file[0].name.rpartition('/')[2]}.{place[:16]}"


def _text(target: Path, owner: str) -> str:
    who = this_process()
    about = [who.user, who.host, who.boot, who.pid, who.pid_start, threading.get_ident()]
    return json.dumps([*about, str(target), owner])


def _read(text: str) -> tuple[Identity | None, Path | None, str]:
    try:
        user, host, boot, pid, start, _, target, owner = json.loads(text)
        who = Identity(str(user), str(host), str(boot), int(pid), int(start))
        return who, Path(target), str(owner)
    except (ValueError, TypeError):
        return None, None, ""


def _remove(note: Path, text: str) -> None:
    """Remove a note if it still says that."""
    aside = note.with_name(f"{note.name}.{os.getpid()}.{threading.get_ident()}")
    with contextlib.suppress(FileNotFoundError):
        note.replace(aside)
        if os.readlink(aside) != text:  # noqa: PTH115 - somebody was faster, and has a new one
            with contextlib.suppress(FileExistsError):
                os.symlink(os.readlink(aside), note)  # noqa: PTH115, PTH211
        aside.unlink()


def _beat(note: Path) -> Callable[[], None]:
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > BEAT:
            last = time.monotonic()
            with contextlib.suppress(OSError, NotImplementedError):
                os.utime(note, follow_symlinks=False)

    return beat
