"""All files of finished runs, and what else lies among them.

A directory is listed once and remembered: its listing tells which logs are there and, when all
recorded outputs have been taken off it, which files nobody has recorded.  Sizes need one stat for
each output; on a local disk that is 3 µs, a listed name 0.5 µs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.audit.files import Finding, Trouble, look
from production.model import RecordedFile, RecordedRun


@dataclass(frozen=True)
class Found:
    """Something that is not as recorded."""

    finding: Finding
    production: str  # alcapana_v4
    run: int | None  # None: it is not known of which
    path: Path | None
    detail: str
    attempt: int | None = None  # that has finished the run


@dataclass(frozen=True)
class _Listing:
    """A directory and what lies in it."""

    production: str  # whose outputs or logs brought us here
    directory: str  # as recorded
    names: dict[str, bool]  # whether an output has claimed it
    trouble: str  # why it cannot be listed


class Audit:
    """Looks at one recorded run after the other, then for strays.

    ``content``: read the outputs, too; ``progress`` is told of bytes read.
    """

    def __init__(self, content: bool, progress: Callable[[int], None] = lambda _: None) -> None:
        self.content = content
        self.progress = progress
        self.runs = 0
        self.outputs = 0
        self._listings: dict[str, _Listing] = {}
        self._real: dict[str, str] = {}
        self._of_outputs: set[str] = set()

    def check(self, production: str, names: Sequence[str], run: RecordedRun) -> Iterator[Found]:
        """What is amiss with a finished run that should have outputs ``names``."""
        self.runs += 1

        def found(trouble: Trouble, path: Path | None) -> Found:
            return Found(trouble.finding, production, run.run, path, trouble.detail, run.attempt)

        for output in run.outputs:
            self.outputs += 1
            directory, name = os.path.split(output.path)
            listing = self.expect(production, directory)
            if name in listing.names:
                listing.names[name] = True
            if trouble := look(output, self.content, self.progress):
                yield found(trouble, output.path)
        for name in sorted({*names} - {output.name for output in run.outputs}):
            yield found(Trouble(Finding.NO_OUTPUT, f"no {name} is recorded"), None)
        for log in run.logs:
            if trouble := self._look_for_log(production, log):
                yield found(trouble, log)

    def _look_for_log(self, production: str, log: Path) -> Trouble | None:
        directory, name = os.path.split(log)
        if name in self._listing(production, directory).names:
            return None
        trouble = look(RecordedFile("log", log), content=False)
        if trouble is not None and trouble.finding is Finding.MISSING:
            return Trouble(Finding.NO_LOG, trouble.detail)
        return trouble

    def expect(self, production: str, directory: str) -> _Listing:
        """Look for strays in ``directory`` as well: outputs of ``production`` go there."""
        listing = self._listing(production, directory)
        self._of_outputs.add(self._real[directory])
        return listing

    def strays(self) -> Iterator[Found]:
        """The files among the outputs that no checked run has recorded."""
        for real in sorted(self._of_outputs):
            listing = self._listings[real]
            where = Path(listing.directory)
            if listing.trouble:
                detail = f"what lies there cannot be listed: {listing.trouble}"
                yield Found(Finding.UNSEEN, listing.production, None, where, detail)
            for name in sorted(name for name, claimed in listing.names.items() if not claimed):
                yield Found(Finding.STRAY, listing.production, None, where / name, "")

    def _listing(self, production: str, directory: str) -> _Listing:
        real = self._real.get(directory)
        if real is None:
            # One directory under two names would show all files as strays under one of them.
            real = self._real[directory] = os.path.realpath(directory)
            if real not in self._listings:
                self._listings[real] = _list(production, directory)
        return self._listings[real]


def _list(production: str, directory: str) -> _Listing:
    names: dict[str, bool] = {}
    trouble = ""
    try:
        with os.scandir(directory) as entries:
            names = {e.name: False for e in entries if not e.is_dir(follow_symlinks=False)}
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        trouble = error.strerror or str(error)
    return _Listing(production, directory, names, trouble)
