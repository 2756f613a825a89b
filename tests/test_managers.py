"""Managers: who lives, who is dead, and how one that was taken for dead finds out."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from bookkeeping import GOLD, Bookkeeping, answer, bookkeeping, processes, python, says, tell
from job_orders import until

from production.identity import (
    Identity,
    current_boot,
    current_user,
    is_alive,
    start_ticks,
    this_process,
)
from production.model import Production, Released
from production.store import managers
from production.store.connection import Database
from production.store.managers import Holder, LeaseWatch

LEASE = 600
ELSEWHERE = Identity("labounty", "merlinl02", "another boot", 4711, 123456)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 9))
        yield books


@pytest.fixture
def production(books: Bookkeeping) -> Production:
    return books.start()


def holding(books: Bookkeeping, production: Production, who: Identity, lease: int = LEASE) -> int:
    """A manager that has claimed a run."""
    id_ = managers.register(books.db, who, production.id, lease)
    store = books.manager(production)
    (claim,) = store.claim(1, GOLD)
    with books.db.write() as tx:
        tx.execute("UPDATE run SET manager = ? WHERE run = ?", (id_, claim.run))
    return id_


def seen(books: Bookkeeping, production: Production) -> list[Holder]:
    """What a manager that holds nothing sees of the others."""
    return managers.holders(books.db, production.id, besides=0)


class Watcher:
    """One who looks for dead managers every half minute."""

    def __init__(self, books: Bookkeeping, production: Production, clock: Clock) -> None:
        self._books, self._production, self._clock = books, production, clock
        self._watch = LeaseWatch()
        self.look()

    def look(self, after: float = 0) -> list[int]:
        """The dead, when so much time has gone by since the last look."""
        self._clock.now += after
        return [holder.id for holder in self._watch.dead(seen(self._books, self._production))]

    def watch(self, seconds: float) -> list[int]:
        """The dead after so long."""
        while seconds > 30:
            self.look(30)
            seconds -= 30
        return self.look(seconds)


class Clock:
    """The observer's clock, in the test's hands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        here = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("production.store.managers.time", here)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# --------------------------------------------------------------------------- processes


def test_a_process_is_known_by_its_pid_and_its_start() -> None:
    me = this_process()
    assert (me.user, me.pid, me.boot) == (current_user(), os.getpid(), current_boot())
    assert start_ticks(me.pid) == me.pid_start > 0
    assert is_alive(me.boot, me.pid, me.pid_start) is True


def test_another_process_with_the_same_pid_is_another_one() -> None:
    me = this_process()
    assert is_alive(me.boot, me.pid, me.pid_start - 1) is False
    assert is_alive(me.boot, me.pid, None) is False


def test_a_pid_says_nothing_on_another_host() -> None:
    me = this_process()
    assert is_alive("another boot", me.pid, me.pid_start) is None
    assert is_alive(None, me.pid, me.pid_start) is None
    assert is_alive(me.boot, None, None) is None


def test_a_process_that_ended_is_dead_even_before_anybody_noticed() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    try:
        began = start_ticks(process.pid)
        assert began is not None
        assert is_alive(current_boot(), process.pid, began) is True
        process.send_signal(signal.SIGSTOP)
        assert is_alive(current_boot(), process.pid, began) is True
    finally:
        process.kill()
    until(lambda: is_alive(current_boot(), process.pid, began) is False)  # a zombie
    process.wait()
    assert start_ticks(process.pid) is None


def test_a_process_that_is_hidden_may_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hidepid, /proc shows nothing of other users' processes."""

    def kill(pid: int, signum: int) -> None:
        raise PermissionError

    me = this_process()
    monkeypatch.setattr("production.identity.start_ticks", lambda pid: None)
    assert is_alive(me.boot, me.pid, me.pid_start) is False
    monkeypatch.setattr("os.kill", kill)
    assert is_alive(me.boot, me.pid, me.pid_start) is None


@pytest.mark.parametrize("name", ["a) R (b 1 2", "cut in between\u00e9", "nothing \udcff"])
def test_strange_names_of_programs_do_not_confuse(tmp_path: Path, name: str) -> None:
    strange = tmp_path / name
    strange.symlink_to("/bin/sleep")
    seen = os.fsencode(name)[:15]  # as much as the kernel keeps: TASK_COMM_LEN
    process = subprocess.Popen([strange, "1000"])
    try:
        until(lambda: seen in Path(f"/proc/{process.pid}/stat").read_bytes())
        began = start_ticks(process.pid)
        assert began is not None
        assert this_process().pid_start <= began
    finally:
        process.kill()
        process.wait()


def test_the_user_is_who_owns_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("USER", "LOGNAME"):
        monkeypatch.setenv(variable, "somebody-else")
    assert current_user() != "somebody-else"
    monkeypatch.setattr("os.getuid", lambda: 3_999_999_999)
    assert current_user() == "3999999999"


# --------------------------------------------------------------------------- registration


def test_a_manager_is_on_record_from_its_start(books: Bookkeeping, production: Production) -> None:
    me = this_process()
    id_ = managers.register(books.db, me, production.id, lease=120)
    assert books.rows(
        "SELECT user, host, boot, pid, pid_start, production, lease, beat, stopped "
        "FROM manager WHERE id = ?",
        id_,
    ) == [(me.user, me.host, me.boot, me.pid, me.pid_start, production.id, 120, 0, None)]
    managers.sign_off(books.db, id_)
    assert books.cell("SELECT stopped >= started FROM manager WHERE id = ?", id_) == 1


def test_only_managers_that_hold_runs_of_the_production_are_looked_at(
    books: Bookkeeping, production: Production
) -> None:
    me = books.manager(production)
    idle, busy = books.manager(production), books.manager(production)
    elsewhere = books.manager(books.start())
    (claim,) = busy.claim(1, GOLD)
    me.claim(1, GOLD)
    elsewhere.claim(1, GOLD)
    found = managers.holders(books.db, production.id, me.manager)
    assert [holder.id for holder in found] == [busy.manager]
    assert idle.manager not in {holder.id for holder in found}
    busy.apply([Released(claim, "rolled back")])
    assert managers.holders(books.db, production.id, me.manager) == []


def test_a_holder_is_described(books: Bookkeeping, production: Production) -> None:
    id_ = holding(books, production, ELSEWHERE, lease=90)
    assert seen(books, production) == [
        Holder(id_, "labounty", "merlinl02", 4711, beat=0, lease=90, alive=None)
    ]


# --------------------------------------------------------------------------- the dead


def test_a_manager_that_lives_is_not_dead(books: Bookkeeping, production: Production) -> None:
    holding(books, production, this_process())
    assert [holder.alive for holder in seen(books, production)] == [True]
    assert LeaseWatch().dead(seen(books, production)) == []


def test_on_the_same_host_the_dead_are_found_at_once(
    books: Bookkeeping, production: Production
) -> None:
    gone = replace(this_process(), pid_start=this_process().pid_start + 1)
    id_ = holding(books, production, gone)
    assert [holder.id for holder in LeaseWatch().dead(seen(books, production))] == [id_]


def test_a_manager_that_signed_off_holds_nothing_any_more(
    books: Bookkeeping, production: Production
) -> None:
    """It could not return its runs then: the database was locked, say."""
    id_ = holding(books, production, ELSEWHERE)
    managers.sign_off(books.db, id_)
    assert [holder.id for holder in LeaseWatch().dead(seen(books, production))] == [id_]


def test_elsewhere_a_lease_must_run_out_first(
    books: Bookkeeping, production: Production, clock: Clock
) -> None:
    id_ = holding(books, production, ELSEWHERE, lease=90)
    watcher = Watcher(books, production, clock)
    assert watcher.watch(90) == []
    assert watcher.look(after=1) == [id_]


def test_every_beat_renews_the_lease(
    books: Bookkeeping, production: Production, clock: Clock
) -> None:
    id_ = holding(books, production, ELSEWHERE, lease=90)
    watcher = Watcher(books, production, clock)
    for _ in range(5):
        assert watcher.watch(80) == []
        assert managers.beat(books.db, id_)
    assert watcher.look() == []
    assert watcher.watch(91) == [id_]


def test_other_clocks_do_not_matter(
    books: Bookkeeping, production: Production, clock: Clock
) -> None:
    """Only whether the beat changes counts, never the time that the other wrote."""
    id_ = holding(books, production, ELSEWHERE, lease=90)
    watcher = Watcher(books, production, clock)
    for beat_at in ("1970-01-01 00:00:00.000000", "2999-01-01 00:00:00.000000"):
        with books.db.write() as tx:
            tx.execute("UPDATE manager SET beat_at = ?", (beat_at,))
        assert watcher.look() == []
    assert watcher.watch(91) == [id_]


def test_whoever_has_just_started_waits_a_whole_lease(
    books: Bookkeeping, production: Production, clock: Clock
) -> None:
    id_ = holding(books, production, ELSEWHERE, lease=90)
    assert Watcher(books, production, clock).watch(91) == [id_]
    assert Watcher(books, production, clock).look() == []


def test_a_manager_that_hangs_is_dead_when_its_lease_is_over(
    books: Bookkeeping, production: Production, clock: Clock
) -> None:
    """Its process is there, but it was stopped, or its filesystem hangs."""
    id_ = holding(books, production, this_process(), lease=90)
    assert Watcher(books, production, clock).watch(91) == [id_]


@pytest.mark.parametrize(
    ("lease", "outage"), [(60, 61), (60, 100), (60, 3600), (90, 119), (600, 86400)]
)
def test_nobody_is_dead_because_nobody_could_reach_the_file(
    books: Bookkeeping, production: Production, clock: Clock, lease: int, outage: float
) -> None:
    """While the filesystem hung, say: the others could not give any sign of life either.

    This one gives its sign of life three times in a lease, and had just been going to.
    """
    id_ = holding(books, production, ELSEWHERE, lease=lease)
    watcher = Watcher(books, production, clock)
    assert watcher.watch(min(lease / 3, 60)) == []
    assert watcher.look(after=outage) == []
    assert managers.beat(books.db, id_)
    assert watcher.look() == []
    assert watcher.watch(lease) == []
    assert watcher.look(after=1) == [id_]


@pytest.mark.parametrize("pause", [60, 130, 300, 3600])
def test_whoever_looks_seldom_finds_the_dead_as_well(
    books: Bookkeeping, production: Production, clock: Clock, pause: float
) -> None:
    id_ = holding(books, production, ELSEWHERE)
    watcher = Watcher(books, production, clock)
    looks = [watcher.look(after=pause) for _ in range(12)]
    assert looks[-1] == [id_]
    assert looks[0] == []


def test_whether_a_manager_elsewhere_lives_shows_with_its_next_beat(
    books: Bookkeeping, production: Production
) -> None:
    quiet = holding(books, production, ELSEWHERE)
    beating = holding(books, production, ELSEWHERE)
    holding(books, production, this_process())
    watch = LeaseWatch()
    watch.dead(seen(books, production))
    undecided = watch.undecided(seen(books, production))
    assert [holder.id for holder in undecided] == [quiet, beating]
    managers.beat(books.db, beating)
    watch.dead(seen(books, production))
    assert [holder.id for holder in watch.undecided(seen(books, production))] == [quiet]


# --------------------------------------------------------------------------- coming back


def test_whoever_was_taken_for_dead_finds_out(books: Bookkeeping, production: Production) -> None:
    slow, quick = books.manager(production), books.manager(production)
    slow.claim(2, GOLD)
    assert managers.beat(books.db, slow.manager)
    orphans = quick.take_over(slow.manager)
    assert not managers.beat(books.db, slow.manager)
    assert slow.held() == []
    assert quick.held() == [orphan.claim for orphan in orphans]


def test_whoever_came_back_counts_as_living_again(
    books: Bookkeeping, production: Production
) -> None:
    slow, quick = books.manager(production), books.manager(production)
    slow.claim(2, GOLD)
    quick.take_over(slow.manager)
    managers.beat(books.db, slow.manager)
    assert managers.beat(books.db, slow.manager)
    (claim,) = slow.claim(1, GOLD)
    assert [
        holder.alive for holder in managers.holders(books.db, production.id, quick.manager)
    ] == [True]
    assert slow.apply([Released(claim, "rolled back")]) == []


def test_a_manager_that_nobody_knows_is_told_so(books: Bookkeeping) -> None:
    assert not managers.beat(books.db, 99)


MANAGER = """
    import sys
    from pathlib import Path
    from production.model import Released, RunFilter
    from production.store import managers, productions
    from production.store.connection import Database
    from production.identity import this_process
    from production.store.runs import RunStore

    with Database(Path(sys.argv[1])) as db:
        production = productions.find(db, "alcapana")
        me = managers.register(db, this_process(), production.id)
        store = RunStore(db, production, me)
        claims = store.claim(3, RunFilter())
        print("claimed", flush=True)
        sys.stdin.readline()
        print(managers.beat(db, me), len(store.held()))
        print(len(store.apply([Released(claim, "rolled back") for claim in claims])))
"""


@pytest.mark.slow
def test_a_manager_that_was_stopped_touches_nothing_when_it_goes_on(
    books: Bookkeeping, production: Production, clock: Clock
) -> None:
    process = python(MANAGER, books.path)
    with processes([process]):
        says(process, "claimed")
        process.send_signal(signal.SIGSTOP)
        watch = LeaseWatch()
        with Database(books.path) as db:
            heir = books.manager(production, db)
            assert watch.dead(managers.holders(db, production.id, heir.manager)) == []
            for _ in range(7):
                clock.now += LEASE / 6
                found = watch.dead(managers.holders(db, production.id, heir.manager))
            (dead,) = found
            assert (dead.pid, dead.alive) == (process.pid, True)
            held = [orphan.claim for orphan in heir.take_over(dead.id)]
            process.send_signal(signal.SIGCONT)
            tell(process)
            assert answer(process) == "False 0\n3\n"
            assert heir.held() == held
            assert heir.apply([Released(claim, "orphan") for claim in held]) == []


@pytest.mark.slow
def test_a_manager_that_was_killed_is_found_at_once(
    books: Bookkeeping, production: Production
) -> None:
    process = python(MANAGER, books.path)
    with processes([process]):
        says(process, "claimed")
        heir = books.manager(production)
        others = managers.holders(books.db, production.id, heir.manager)
        assert [holder.alive for holder in others] == [True]
        process.kill()
        process.wait()
        (dead,) = LeaseWatch().dead(managers.holders(books.db, production.id, heir.manager))
        assert dead.pid == process.pid
        assert [orphan.claim.run for orphan in heir.take_over(dead.id)] == [1, 2, 3]
    assert managers.holders(books.db, production.id, heir.manager) == []
