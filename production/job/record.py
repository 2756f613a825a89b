"""The exit record that a job leaves in its spool.

It is written by sge_scripts/job.sh, as a whole or not at all.  A network filesystem may hand it
out damaged all the same, so every line is checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from production.errors import RecordDamaged, SpoolTrouble
from production.model import JobRecord, OutputFile
from production.units import is_utf8

RECORD = "record"

PHASES = ("start", "preflight", "payload", "publish", "done")

_VERSION = "1"
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OUTPUT = "output."


def read_record(spool: Path) -> JobRecord | None:
    """The job's exit record; None as long as there is none.

    Raises RecordDamaged when it makes no sense, and SpoolTrouble when it cannot be read now,
    which tells nothing about the job.
    """
    path = spool / RECORD
    try:
        return parse_record(os.fsdecode(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpoolTrouble(path=path, what=error.strerror or error) from None
    except ValueError as error:
        raise RecordDamaged(path=path, what=error) from None


def parse_record(text: str) -> JobRecord:
    """The record's text as a value; ValueError says what is wrong with it."""
    lines = text.split("\n")
    if lines.pop() or not lines or lines[-1] != "complete=yes":
        raise ValueError("it is cut off")
    values: dict[str, str] = {}
    for line in lines:
        key, sign, value = line.partition("=")
        if not sign or key in values:
            raise ValueError(f"line {line[:80]!r} does not belong there")
        if key != "reason" and not is_utf8(line):
            raise ValueError(f"line {line[:80]!r} is not UTF-8")
        values[key] = value
    if values.get("version") != _VERSION:
        raise ValueError(f"it has version {values.get('version', '')[:80]!r}, not {_VERSION}")
    return JobRecord(
        phase=_matching(values, "phase", re.compile("|".join(PHASES))),
        exit_code=_number(values, "exit_code"),
        signal=_number(values, "signal") if values.get("signal") else None,
        host=_matching(values, "host", re.compile(".+")),
        start=_matching(values, "start", _TIME),
        stop=_matching(values, "stop", _TIME),
        reason=_printable(values.get("reason", "")),
        cpu_seconds=_decimal(values, "cpu_seconds") if values.get("cpu_seconds") else None,
        peak_memory=_number(values, "peak_memory") if values.get("peak_memory") else None,
        outputs=tuple(
            _output(key.removeprefix(_OUTPUT), value)
            for key, value in values.items()
            if key.startswith(_OUTPUT)
        ),
    )


def _matching(values: Mapping[str, str], key: str, pattern: re.Pattern[str]) -> str:
    value = values.get(key, "")
    if not pattern.fullmatch(value):
        raise ValueError(f"{key} is {value[:80]!r}")
    return value


def _number(values: Mapping[str, str], key: str) -> int:
    return int(_matching(values, key, re.compile(r"[0-9]{1,18}")))


def _decimal(values: Mapping[str, str], key: str) -> float:
    return float(_matching(values, key, re.compile(r"[0-9]{1,12}\.[0-9]{1,6}")))


def _printable(text: str) -> str:
    """Text that a database and a terminal can take: a job may have written any bytes."""
    return os.fsencode(text).decode(errors="replace")


def _output(name: str, value: str) -> OutputFile:
    size, _, rest = value.partition(" ")
    sha256, _, path = rest.partition(" ")
    if not re.fullmatch(r"[0-9]{1,18}", size) or not _SHA256.fullmatch(sha256) or not path:
        raise ValueError(f"output {name[:80]} is {value[:120]!r}")
    return OutputFile(name=name, path=Path(path), size=int(size), sha256=sha256)
