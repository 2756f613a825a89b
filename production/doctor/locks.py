"""The lock tests that the doctor makes in the database's directory: on this host, with another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from production.doctor.channels import SilentError, here, there
from production.doctor.filesystem import Kind
from production.doctor.findings import Finding, Level, error, note, warning
from production.doctor.locktest import ONE_HOST, LockTest
from production.doctor.meeting import Mailbox, find_partner, serve

LOCKS = "locks"
TWO_HOSTS = "two hosts"

_LATE = 30.0  # seconds that another doctor may be behind, beside its own tests
_CONNECT = 60.0  # seconds until a half answers that is started by ssh
_HOW = "production doctor --other-host=HOST, or production doctor --meet=60 in a shell on each host"


def on_this_host(own: Path, seconds: float) -> Iterator[Finding]:
    """Two processes of this host; ``own`` is the doctor's scratch directory."""
    try:
        with here() as one, here() as two:
            yield from LockTest(LOCKS, one, two, own / "locks.db", seconds).findings()
    except SilentError as silent:
        yield error(LOCKS, f"the lock test cannot be made: {silent}", "Free some memory, try again")


def with_host(own: Path, host: str, seconds: float) -> Iterator[Finding]:
    """A process here and one on ``host``, by ssh."""
    try:
        with here() as one, there(host) as two:
            test = LockTest(TWO_HOSTS, one, two, own / "hosts.db", seconds, _CONNECT, apart=True)
            yield from test.findings()
    except SilentError as silent:
        yield error(TWO_HOSTS, f"{host} cannot be asked: {silent}", f"Try it the other way: {_HOW}")


def with_whoever_is_there(
    own: Path, seconds: float, patience: float, say: Callable[[str], None]
) -> Iterator[Finding]:
    """Another doctor in this directory; ``patience``: seconds to wait for one.

    Nothing is found when there is none and none was waited for.
    """
    if patience:
        say(f"Waits {patience:g} s for production doctor in another shell")
    partner = find_partner(own, patience)
    if partner is None:
        if patience:
            what = f"no other production doctor came within {patience:g} s"
            yield warning(TWO_HOSTS, what, "Start it in both shells at the same time")
        return
    say(f"Meets {partner}")
    try:
        if partner < own.name:
            yield from serve(own, partner, seconds + patience + _LATE)
        else:
            yield from _lead(own, partner, seconds, seconds + patience + _LATE)
    except SilentError as silent:
        what = f"the production doctor that was there did not take part: {silent}"
        remedy = f"Try again; when none runs, remove {own.parent / partner}"
        yield (warning if patience else note)(TWO_HOSTS, what, remedy)


def _lead(own: Path, partner: str, seconds: float, patience: float) -> Iterator[Finding]:
    mailbox = Mailbox(own, partner)
    findings: list[Finding] = []
    try:
        with here() as one:
            test = LockTest(
                TWO_HOSTS, one, mailbox, own / "hosts.db", seconds, patience, apart=True
            )
            findings += test.findings()
    finally:
        mailbox.end(findings)
    yield from findings


def was_tried(findings: Sequence[Finding]) -> bool:
    """Whether a test with another host said something of two hosts."""
    told = any(finding.level is not Level.NOTE for finding in findings)
    return told and all(finding.check != ONE_HOST for finding in findings)


def not_tried(place: Path, kind: Kind) -> Iterator[Finding]:
    """When nobody tried locks between hosts on a filesystem that hosts can share."""
    what = f"whether locks in {place} hold between hosts was not tried"
    if kind.doubtful:
        yield warning(TWO_HOSTS, f"{what}, and on this filesystem they may not", f"Try it: {_HOW}")
    elif kind.shared:
        yield note(TWO_HOSTS, what, f"Try it: {_HOW}")
