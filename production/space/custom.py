"""A command of the user's own that knows the limits.

It prints one line a limit: bytes used and allowed, and, if it likes, files used and allowed::

    1500000000 2000000000
    1500000000 2000000000 3512 50000

0 allowed is no limit.  An exit code other than 0 is trouble, and the first line that it wrote to
standard error says which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from production.commands import run
from production.errors import CommandError, ProbeFailed
from production.model import Space
from production.space.quotas import Count, Quota, as_space

_TIMEOUT = 60.0  # seconds
_FIGURE = re.compile(r"[0-9]{1,18}")


class CustomProbe:
    """What ``argv`` prints."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv

    def probe(self) -> Space:
        """See ``Probe``.  Raises NoQuotaSet, ProbeFailed."""
        name = self._argv[0]
        try:
            quotas = parse_lines(run(self._argv, timeout=_TIMEOUT).stdout)
        except CommandError as error:
            raise ProbeFailed(where="your quota", what=str(error)) from None
        if quotas is None:
            what = f"{name} did not print lines of 2 or 4 numbers"
            raise ProbeFailed(where="your quota", what=what)
        return as_space(quotas, name, "your quota")


def parse_lines(text: str) -> list[Quota] | None:
    """The quotas, or None when there is no line or one that makes no sense."""
    quotas = []
    for line in filter(str.strip, text.splitlines()):
        words = line.split()
        if len(words) not in (2, 4) or not all(map(_FIGURE.fullmatch, words)):
            return None
        used, limit, files, most = map(int, [*words, "0", "0"][:4])
        quotas.append(Quota("", "", Count(used, hard=limit), Count(files, hard=most)))
    return quotas or None
