"""What PBS prints of its jobs: the JSON of PBS Pro and OpenPBS, the XML of Torque.

Sources: the reference guide of PBS Professional 2022, the sources of OpenPBS 22 and Torque 6, and
their manual pages; nothing was recorded from a real server.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from production.model import JobState

_ID = re.compile(r"([0-9]{1,18})(?:\[([0-9]{0,9})\])?(\.\S{1,255})?", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([1-9][0-9]{0,8}))?)?", re.ASCII)
_LARGEST = 1_000_000  # an index
# How a line of qstat's JSON begins, unless a line break within a value stands before it, and one
# with a key, and what follows that.
_BEGINNING = re.compile(r'\s*(?:[]{}[],?\s*$|"(?:[^"\\]|\\.)*":)')
_LINE = re.compile(r'(\s*"(?:[^"\\]|\\.)*":\s*)(.*?)(,?)\s*', re.DOTALL)
_SIMPLE = re.compile(r'\s*"(?:[^"\\]|\\.)*":\s*(?:"[^"\\]*"|0|[1-9][0-9]*),?\s*|\s*[]{}[],?\s*')
_CONTROL = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_HOLDERS: Mapping[str, str] = {
    "u": "its owner",
    "o": "an operator",
    "s": "the system",
    "p": "a bad password",
    "a": "its start time",
}
_READ = {
    *("job_state", "Job_Name", "comment", "Hold_Types", "queue", "array_indices_remaining"),
    *("Exit_status", "exit_status", "resources_used", "Resource_List"),
}
_PENDING = frozenset("QWT")
_ENDED = frozenset("FXCM")

_LIMIT = "limit of the batch system"
# Negative exit statuses: those that mean the same everywhere, and those of Torque and of PBS from
# 2020 on (before, they were greater by one).
_FAILURES: Mapping[int, str] = {
    -1: "it could not be started on its node",
    -2: "it could not be started on its node",
    -3: "it could not be started on its node, and was to be tried again",
    -4: "its node's server was started anew",
    -5: "its node's server was started anew",
    -6: "its node's server was started anew",
    -7: "it could not be restarted",
    -8: "its command could not be run",
    -9: "its output files could not be made",
}
TORQUE_FAILURES: Mapping[int, str] = {
    **_FAILURES,
    -10: f"over the memory {_LIMIT}",
    -11: f"over the time {_LIMIT}",
    -12: f"over the CPU time {_LIMIT}",
}
PRO_FAILURES: Mapping[int, str] = {
    **_FAILURES,
    -24: f"over the processor {_LIMIT}",
    -25: f"over the processor {_LIMIT}",
    -26: f"over the virtual memory {_LIMIT}",
    -27: f"over the memory {_LIMIT}",
    -28: f"over the CPU time {_LIMIT}",
    -29: f"over the time {_LIMIT}",
}


@dataclass(frozen=True, order=True)
class Id:
    """The id of a job, an array (index 0) or an element of one: ``12.server``, ``12[3].server``."""

    number: str
    index: int | None = None
    server: str = field(default="", compare=False)  # one has no two of the same number

    @classmethod
    def parse(cls, text: str) -> Id:
        """Raises ValueError."""
        match = _ID.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:60]!r} is no id of a job")
        number, index, server = match.groups()
        return cls(number, None if index is None else int(index or 0), server or "")

    def element(self, index: int) -> Id:
        """That element of the array."""
        return Id(self.number, index, self.server)

    @property
    def whole(self) -> Id:
        """The array to which an element belongs, or the job itself."""
        return self if self.index is None else self.element(0)

    def __str__(self) -> str:
        index = "" if self.index is None else f"[{self.index or ''}]"
        return f"{self.number}{index}{self.server}"


@dataclass(frozen=True)
class Job:
    """A job as qstat tells of it."""

    id: Id
    name: str
    state: JobState
    queue: str
    why: str = ""  # how it ended, or why it is held
    waiting: frozenset[int] = frozenset()  # elements of an array that have not started


def read_json(text: str) -> list[Job]:
    """The jobs in the answer of ``qstat -f -F json``.

    Raises ValueError when it is not a whole answer.  Several releases write numbers and escapes
    that are not JSON, out of the environment of jobs (OpenPBS issues 1255, 2049, 2541): a value
    that cannot be read is taken as a text.
    """
    try:
        answer = json.loads(text, strict=False, object_hook=_needed)
    except (ValueError, RecursionError):
        try:
            answer = json.loads(_mended(text), strict=False, object_hook=_needed)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it printed no JSON ({error}): {text[:100]!r}") from None
    if not isinstance(answer, dict) or "timestamp" not in answer:
        raise ValueError(f"it printed {text[:100]!r}")
    jobs = answer.get("Jobs", {})
    if not isinstance(jobs, dict):
        raise ValueError(f"it printed jobs {str(jobs)[:100]!r}")
    major = re.search(r"[0-9]+", str(answer.get("pbs_version", "")))
    failures = PRO_FAILURES if major and int(major[0][:9]) >= 20 else _FAILURES
    return [_job(id_, fields, failures) for id_, fields in jobs.items()]


def _needed(values: dict[str, object]) -> dict[str, object]:
    """Of a job what is read here: ten thousand jobs with all that is told of them are much."""
    if "job_state" not in values:
        return values
    return {name: value for name, value in values.items() if name in _READ}


def _mended(text: str) -> str:
    lines: list[str] = []
    for line in text.split("\n"):
        if _BEGINNING.match(line) or not lines:
            lines.append(line)
        else:
            lines[-1] += f"\n{line}"
    return "\n".join(map(_with_value, lines))


def _with_value(line: str) -> str:
    if _SIMPLE.fullmatch(line):
        return line
    match = _LINE.fullmatch(line)
    if match is None or match[2].strip() in ("{", "["):
        return line
    try:
        json.loads(match[2], strict=False)
    except ValueError:
        plain = match[2].strip('"')
        return f"{match[1]}{json.dumps(plain)}{match[3]}"
    return line


def read_xml(text: str) -> list[Job]:
    """The jobs in the answer of Torque's ``qstat -f -x``, which may be several documents.

    Raises ValueError when it is not a whole answer.
    """
    documents = text.split("</Data>")
    if documents.pop().strip() or not documents:
        raise ValueError(f"it printed {text[:100]!r}")
    return [job for document in documents for job in _xml_jobs(f"{document}</Data>")]


def _xml_jobs(text: str) -> Iterator[Job]:
    if "<!" in text:  # no document type, so no entities that could be made to explode
        raise ValueError(f"it printed {text[:100]!r}")
    try:
        root = ET.fromstring(_CONTROL.sub("", text).strip())  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"it printed no XML ({error}): {text[:100]!r}") from None
    for entry in root.iter("Job"):
        fields = {
            child.tag: {leaf.tag: leaf.text or "" for leaf in child} or child.text or ""
            for child in entry
        }
        yield _job(str(fields.get("Job_Id", "")), fields, TORQUE_FAILURES)


def _job(id_: str, fields: object, failures: Mapping[int, str]) -> Job:
    if not isinstance(fields, dict):
        raise ValueError(f"it printed of {id_[:60]!r} only {str(fields)[:60]!r}")
    texts = {key: str(value).strip() for key, value in fields.items()}
    letter, name = texts.get("job_state", ""), texts.get("Job_Name", "")
    if not re.fullmatch("[A-Z]", letter) or not name:
        raise ValueError(f"it printed of {id_[:60]!r} no state or no name")
    comment = texts.get("comment", "")
    found = Id.parse(id_)
    state, why = JobState.RUNNING, ""
    if letter in _PENDING:
        state = JobState.PENDING
    elif letter == "H":
        state, why = JobState.HELD, _held(texts.get("Hold_Types", ""), comment)
    elif letter in _ENDED:
        state, why = JobState.GONE, _ended(letter, texts, fields, failures)
    waiting = frozenset(_indices(texts.get("array_indices_remaining", "")))
    return Job(found, name, state, texts.get("queue", ""), why, waiting)


def _indices(text: str) -> Iterator[int]:
    """Such as ``2,5-9:2``; what makes no sense, as ``-`` for none, is left out."""
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match and int(match[2] or 0) <= _LARGEST:
            yield from range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))


def _held(types: str, comment: str) -> str:
    by = " and ".join(words for letter, words in _HOLDERS.items() if letter in types)
    why = f"held by {by or 'somebody'}; qrls lets it go on"
    return f"{why} ({comment})" if comment else why


# ---------------------------------------------------------------------- how jobs ended


def _ended(
    letter: str,
    texts: Mapping[str, str],
    fields: Mapping[str, object],
    failures: Mapping[int, str],
) -> str:
    if letter == "M":
        return f"moved to another server, where it is not watched ({texts.get('comment', 'M')})"
    status = texts.get("Exit_status") or texts.get("exit_status") or ""
    if not re.fullmatch(r"-?[0-9]{1,6}", status, re.ASCII):
        comment = texts.get("comment")
        return f"it ended before it was started ({comment})" if comment else ""
    words = in_words(int(status), failures)
    limit = _exceeded(fields.get("resources_used"), fields.get("Resource_List"))
    if limit and status != "0" and "limit" not in words:
        words = f"over the {limit} {_LIMIT}, {words}"
    return words


def in_words(status: int, failures: Mapping[int, str]) -> str:
    """The exit status of a job: PBS's own are negative, signals are added to 128 or to 256."""
    if status < 0:
        own = failures.get(status, "ended by the batch system")
        return f"{own} (exit status {status})"
    if status == 0:
        return "the batch system saw it end well"
    number = status - (256 if status > 256 else 128)
    if number > 0:
        try:
            return f"ended by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            pass
    return f"ended with exit code {status}"


def _exceeded(used: object, limits: object) -> str:
    """Which limit a job had come to, or nothing."""
    if not isinstance(used, dict) or not isinstance(limits, dict):
        return ""
    for name, words, measure in (
        ("walltime", "time", _seconds),
        ("cput", "CPU time", _seconds),
        ("mem", "memory", _bytes),
    ):
        took, allowed = measure(str(used.get(name, ""))), measure(str(limits.get(name, "")))
        if took is not None and allowed is not None and took >= allowed > 0:
            return words
    return ""


def _seconds(text: str) -> int | None:
    """``01:30:00`` or ``5400``."""
    if not re.fullmatch(r"[0-9]{1,9}(:[0-9]{1,9}){0,3}", text, re.ASCII):
        return None
    units = (1, 60, 3600, 86400)
    return sum(
        int(part) * unit for part, unit in zip(reversed(text.split(":")), units, strict=False)
    )


def _bytes(text: str) -> int | None:
    """``2097152kb`` or ``2gb``."""
    match = re.fullmatch(r"([0-9]{1,18})([kmgt]?)b", text, re.ASCII | re.IGNORECASE)
    return int(match[1]) << (10 * " kmgt".index(match[2].lower() or " ")) if match else None
