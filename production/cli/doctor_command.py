"""Check all that the work depends on, and tell what to do.

Looks at the filesystem of the database, its locks, the database itself, and at what managers and
jobs need around it.  Nothing is changed; scratch files are removed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

from production.cli.parser import (
    add_config,
    add_database,
    add_output,
    converter,
    number,
    time_option,
    word,
)
from production.errors import SetupBroken, SetupDoubtful
from production.units import counted

if TYPE_CHECKING:
    from production.doctor.findings import Finding


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
        type=time_option(1, 86400),
        default=600.0,
        help="Wait # seconds for that job. (Default: 600)",
    )
    add_config(parser)
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
    with closing(examine(wishes, _say)) as found:
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
    doubtful = counted(len(warnings), "warning")
    if errors:
        wrong = counted(len(errors), "error")
        raise SetupBroken(errors=wrong, warnings=doubtful, checks=checks)
    if warnings:
        raise SetupDoubtful(warnings=doubtful, checks=checks)
