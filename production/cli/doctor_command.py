"""Check all that the work depends on, and tell what to do.

Looks at the filesystem of the database, its locks, the database itself, and at what managers and
jobs need around it.  Nothing is changed; scratch files are removed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from production.cli.parser import add_database, add_output, converter, number, path, word
from production.errors import Interrupted, SetupBroken, SetupDoubtful

if TYPE_CHECKING:
    from production.doctor.findings import Finding

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--production",
        metavar="PROD_TYPE",
        type=word,
        help="The production type whose recipe and modules file are to be fit for use. "
        "(Default: all recipes that are found; a missing modules file is no trouble)",
    )
    parser.add_argument(
        "--other-host",
        metavar="HOST",
        type=converter(_host),
        help="Try locks between this host and HOST, where the test is started with ssh.",
    )
    parser.add_argument(
        "--meet",
        metavar="#",
        type=number(float, "a time in seconds", 0, 3600),
        default=0.0,
        help="Wait # seconds for a production doctor in another shell, on another host, to try "
        "locks with. (Default: 0, only one that is there already)",
    )
    parser.add_argument(
        "--seconds",
        metavar="#",
        type=number(float, "a time in seconds", 0.1, 3600),
        default=5.0,
        help="How long a lock test counts. (Default: 5)",
    )
    parser.add_argument(
        "--node",
        action="store_true",
        help="Submit a small job that looks whether a node has what jobs need.",
    )
    parser.add_argument(
        "--wait",
        metavar="#",
        type=number(float, "a time in seconds", 1, 86400),
        default=600.0,
        help="Wait # seconds for that job. (Default: 600)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=path,
        help="The configuration. (Default: production.toml beside the database)",
    )
    add_database(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.doctor.examine import Wishes, examine

    wishes = Wishes(
        database=options.database,
        config=options.config,
        production=options.production,
        other_host=options.other_host,
        node=options.node,
        seconds=options.seconds,
        meet=options.meet,
        wait=options.wait,
    )
    findings = []
    with _signals_raise(), closing(examine(wishes, _say)) as found:
        for finding in found:
            findings.append(finding)
            _show(finding, options.output)
    if options.output == "json":
        rows = [{**asdict(finding), "level": str(finding.level)} for finding in findings]
        print(json.dumps(rows, indent=1))
    _conclude(findings)
    return 0


def _host(text: str) -> str:
    if not text or text.startswith("-") or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is not a host")
    return text


def _say(text: str) -> None:
    """What takes its time, for people who wait."""
    if sys.stderr.isatty():
        print(f"{text} ...", file=sys.stderr)


def _show(finding: Finding, output: str) -> None:
    from production.doctor.findings import Level

    if output == "json" or (output == "quiet" and finding.level < Level.WARNING):
        return
    print(f"{finding.level!s:8}{finding.check:13}{finding.what}", flush=True)
    if finding.remedy:
        print(f"{'':21}{finding.remedy}", flush=True)


def _conclude(findings: Sequence[Finding]) -> None:
    """Raise what the worst finding comes to."""
    from production.doctor.findings import Level

    errors = [f.check for f in findings if f.level is Level.ERROR]
    warnings = [f.check for f in findings if f.level is Level.WARNING]
    checks = ", ".join(dict.fromkeys([*errors, *warnings]))
    if errors:
        raise SetupBroken(errors=len(errors), warnings=len(warnings), checks=checks)
    if warnings:
        raise SetupDoubtful(warnings=len(warnings), checks=checks)


class _Stop(BaseException):
    """A signal; no ProductionError, which would be a finding."""

    def __init__(self, signum: int) -> None:
        self.signum = signum


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Have a signal end the work as Ctrl-C does, so that scratch files are removed."""

    def handle(signum: int, _frame: object) -> None:
        raise _Stop(signum)

    before = {signum: signal.signal(signum, handle) for signum in _SIGNALS}
    try:
        yield
    except _Stop as stop:
        raise Interrupted(stop.signum) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
