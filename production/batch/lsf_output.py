"""What LSF's bjobs prints: JSON or text of chosen fields, or the old wide format.

Sources: the command reference of IBM Spectrum LSF 10.1 (bjobs -o, -json), and what volclava 2.2
printed as recorded in tests/data/lsf_*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from production.batch.cluster import Listed
from production.batch.lsf_history import SEEN_DONE
from production.batch.together import Place
from production.commands import Completed
from production.errors import QueryFailed
from production.model import JobState

SYSTEM = "lsf"

ID = re.compile(r"[0-9]{1,18}(\[[0-9]{1,9}\])?", re.ASCII)
_INDEXED = re.compile(r"(.*)\[([0-9]{1,9})\]", re.DOTALL | re.ASCII)
# Proof that the job does not exist (any more), or that no job was asked for that does.
NOT_FOUND = re.compile(r"Job <([^<>\n]{1,4200})> is not found", re.ASCII)
_NOTHING = re.compile(r"^No (unfinished |matching |finished )?job found", re.MULTILINE)

_PENDING = frozenset(("PEND", "WAIT"))
_HELD: Mapping[str, str] = {
    "PSUSP": "suspended before it started (PSUSP); bresume lets it go on",
    "USUSP": "suspended by a user while it ran (USUSP); bresume lets it go on",
}
_ENDED: Mapping[str, str] = {
    "DONE": SEEN_DONE,
    "POST_DONE": SEEN_DONE,
    "EXIT": "failed (EXIT)",
    "POST_ERR": "its post-execution command failed (POST_ERR)",
    # It was killed while its node was out of reach.  The node may come back and end it then; what
    # it publishes until then is for the fence in its spool to prevent.
    "ZOMBI": "it was killed while its node could not be reached (ZOMBI)",
}


@dataclass(frozen=True)
class Form:
    """A way to ask bjobs, and how its answer is read.

    ``read`` gives the fields of each job, by bjobs' own names in capitals, with ERROR for one that
    does not exist; it raises ValueError when the text is not a whole answer.
    """

    options: tuple[str, ...]
    read: Callable[[str], list[Mapping[str, str]]]


def parse_bjobs(answer: Completed, form: Form) -> tuple[list[Listed], set[str]]:
    """The jobs that bjobs printed, and those of which it says that they do not exist.

    Raises QueryFailed when it is not a whole answer.
    """
    denied = set(NOT_FOUND.findall(answer.stderr))
    if not answer.stdout.strip():
        if denied or _NOTHING.search(answer.stderr):
            return [], denied
        lines = answer.stderr.split("\n")
        what = lines[0].strip() or f"it printed nothing, exit code {answer.code}"
        raise QueryFailed(system=SYSTEM, what=f"bjobs: {what[:200]}")
    rows = []
    try:
        for fields in form.read(answer.stdout):
            if error := fields.get("ERROR"):
                gone = NOT_FOUND.search(error)
                if gone is None:
                    raise ValueError(error[:200])
                denied.add(gone[1])
            else:
                rows.append(_listed(fields))
    except ValueError as error:
        raise QueryFailed(system=SYSTEM, what=f"bjobs: {error}") from None
    return rows, denied


def _listed(fields: Mapping[str, str]) -> Listed:
    id_, state, name = (fields.get(key, "") for key in ("JOBID", "STAT", "JOB_NAME"))
    queue = fields.get("QUEUE", "")
    if not ID.fullmatch(id_) or not re.fullmatch(r"[A-Z_]{2,12}", state):
        raise ValueError(f"it printed a job {id_[:40]!r} in state {state[:40]!r}")
    # The index stands in the name, and depending on release and settings elsewhere as well.
    indexed = _INDEXED.fullmatch(name)
    index = indexed[2] if indexed else fields.get("JOBINDEX", "")
    if not re.fullmatch(r"[0-9]{1,9}", index, re.ASCII):
        index = "0"
    place = Place(indexed[1] if indexed else name, int(index) or None)
    if place.index is not None:
        id_ = f"{number(id_)}[{place.index}]"
    if state in _PENDING:
        return Listed(id_, place, JobState.PENDING, queue=queue)
    if state in _HELD:
        return Listed(id_, place, JobState.HELD, f"held: {_HELD[state]}", queue)
    if state in _ENDED:
        return Listed(id_, place, JobState.GONE, _ENDED[state])
    # Running, or suspended for a while by LSF itself (SSUSP), or on its way (PROV); or out of
    # sight with its node (UNKWN), from where it may come back.
    return Listed(id_, place, JobState.RUNNING, queue=queue)


def read_json(text: str) -> list[Mapping[str, str]]:
    """The answer of ``bjobs -o ... -json``; see Form."""
    try:
        answer = json.loads(text[max(text.find("{"), 0) :])
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it printed no JSON ({error}): {text[:100]!r}") from None
    records = answer.get("RECORDS") if isinstance(answer, dict) else None
    if not isinstance(records, list) or str(answer.get("JOBS")) != str(len(records)):
        raise ValueError(f"it printed {text[:100]!r}")
    found: list[Mapping[str, str]] = []
    for record in records:
        if not isinstance(record, dict):
            raise ValueError(f"it printed a record {str(record)[:100]!r}")
        found.append({key: str(value) for key, value in record.items()})
    return found


def read_text(text: str) -> list[Mapping[str, str]]:
    """The answer of ``bjobs -o`` where there is no -json; see Form."""
    return _table(text, _FIELDS.upper().split(), re.compile(r"(\S+) +(\S+) +(\S+) +(.*?)"))


def read_wide(text: str) -> list[Mapping[str, str]]:
    """The answer of ``bjobs -w``; see Form.

    The columns are as wide as their contents, and the execution host may be blank.
    """
    names = _CLASSIC.split()
    time = r"[A-Z][a-z]{2} +[0-9]{1,2} +[0-9]{2}:[0-9]{2}(?: [0-9]{4})?"
    host = r"(?: +(\S+))?"
    row = re.compile(rf"(\S+) +(\S+) +(\S+) +(\S+) +(\S+){host} +(\S.*?) +({time})", re.ASCII)
    return _table(text, names, row)


def _table(text: str, names: list[str], row: re.Pattern[str]) -> list[Mapping[str, str]]:
    lines = text.split("\n")
    head = next((i for i, line in enumerate(lines) if line.split() == names), None)
    if head is None or lines.pop():
        raise ValueError(f"it printed {text[:100]!r}")
    found: list[Mapping[str, str]] = []
    for line in lines[head + 1 :]:
        match = row.fullmatch(line.rstrip())
        if match is None:
            raise ValueError(f"it printed {line[:100]!r}")
        found.append(dict(zip(names, (value or "" for value in match.groups()), strict=True)))
    return found


# Asked for by name alone, fields are as wide as what is in them.  Those that all releases with -o
# know are among the eight of the ordinary output.
_FIELDS = "jobid stat queue job_name"
_CLASSIC = "JOBID USER STAT QUEUE FROM_HOST EXEC_HOST JOB_NAME SUBMIT_TIME"
FORMS = (
    Form(("-o", f"{_FIELDS} jobindex", "-json"), read_json),
    Form(("-o", _FIELDS, "-json"), read_json),
    Form(("-o", _FIELDS), read_text),
    Form(("-w",), read_wide),
)


def number(id_: str) -> str:
    """The id of the array that has the element ``id_``, or of the job itself."""
    return id_.partition("[")[0]
