"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

FORMS = ("table", "json", "quiet")


def render(headers: Sequence[str], rows: Sequence[Sequence[object]], form: str) -> str:
    """The rows as a table, as a JSON list of objects, or (quiet) their first column alone."""
    if form == "json":
        return json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=1)
    if form == "quiet":
        return "\n".join(str(row[0]) for row in rows)
    from tabulate import tabulate

    # numparse would print software tags such as 1e5 as numbers
    return str(tabulate(rows, headers=headers, disable_numparse=True))
