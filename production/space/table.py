"""The table that quota(1) and ``lfs quota`` have in common.

::

    Disk quotas for user mu2e (uid 1001):
         Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
    fileserver:/export/mu2e
                      15392*  10000   20000   7days       5     100     200

Sizes are in KiB, a limit of 0 is none, ``*`` marks what is above its soft limit, and brackets what
is not known exactly.  A long name has a line of its own.  A grace may be missing.
"""

from __future__ import annotations

import re

from production.space.quotas import KIB, Count, Quota

_TITLE = re.compile(r"Disk quotas for (\w+) (.*?) \([a-z]+ [0-9]+\):\s*(none)?\s*")
_HEADING = re.compile(r"\s*Filesystem\s+(?:blocks|kbytes)\s+quota\s+limit\s.*")
_NOTE = re.compile(r"[a-z]+ [0-9]+ is using default .*|Some errors happened .*|\s*")
_FIGURE = re.compile(r"\[?([0-9]{1,18})\]?\*?")
_ALL_FIGURES = {6: (0, 1, 2, 3, 4, 5), 8: (0, 1, 2, 4, 5, 6)}  # without graces, or all as figures


def parse_table(text: str) -> list[Quota] | None:
    """The quotas, or None when that is no such table; no output at all: no quota is set."""
    quotas: list[Quota] = []
    kind = name = ""
    for line in text.splitlines():
        if title := _TITLE.fullmatch(line):
            kind, name = f"{title[1]} {title[2]}", ""
        elif _HEADING.fullmatch(line) or (_NOTE.fullmatch(line) and not name):
            continue
        elif kind and not name and len(line.split()) == 1:
            name = line.strip()
        else:
            quota = _row(f"{name} {line}" if name else line, kind)
            if quota is None or not kind:
                return None
            quotas.append(quota)
            name = ""
    return None if name else quotas


def is_inexact(text: str) -> bool:
    """Whether figures are in brackets."""
    return re.search(r"\[[0-9]+\]", text) is not None


def _row(line: str, kind: str) -> Quota | None:
    name, *words = line.split()
    figures = [_FIGURE.fullmatch(word) for word in words]
    graces = [place for place, figure in enumerate(figures) if figure is None]
    numbers = [int(figure[1]) for figure in figures if figure is not None]
    if not graces and len(words) in _ALL_FIGURES:
        used, soft, hard, files, files_soft, files_hard = (
            numbers[place] for place in _ALL_FIGURES[len(words)]
        )
        grace, files_grace = (words[3], words[7]) if len(words) == 8 else ("", "")
    elif len(numbers) == 6 and graces in ([3], [6], [3, 7]):
        used, soft, hard, files, files_soft, files_hard = numbers
        grace = words[3] if graces[0] == 3 else ""
        files_grace = words[graces[-1]] if graces[-1] != 3 else ""
    else:
        return None
    return Quota(
        name,
        kind,
        Count(used * KIB, soft * KIB, hard * KIB, grace),
        Count(files, files_soft, files_hard, files_grace),
    )
