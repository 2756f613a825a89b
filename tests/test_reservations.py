"""What is reserved of the space: together, transfers and jobs stay below every limit."""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path

import pytest
from bookkeeping import GOLD, Bookkeeping, finished, intended, submitted
from desks import Office
from malformed import SEED

from production.manager import room
from production.manager.room import MustWait, Room
from production.manager.work import Phase, Work
from production.model import Claim, Space, Unit, Usage
from production.space.reserve import NOTHING, Need, Reservations
from production.store import sizes

LIMITS = (Usage(10, 100, "disk"), Usage(2, 10, "disk, files", Unit.FILES))


def reservations(fraction: float = 0.9, *limits: Usage) -> Reservations:
    made = Reservations()
    made.begin_probe(())
    made.end_probe(limits or LIMITS, fraction)
    return made


def reserved(made: Reservations) -> Need:
    """All of it."""
    return made._sum


# --------------------------------------------------------------------------- shares


def test_what_does_not_fit_is_refused_as_a_whole() -> None:
    made = reservations()
    assert made.take({(1, "input"): Need(50, 1)})
    assert not made.take({(2, "input"): Need(20, 1), (2, "output"): Need(11, 1)})
    assert reserved(made) == Need(50, 1)
    assert made.take({(2, "input"): Need(20, 1), (2, "output"): Need(10, 1)})
    assert reserved(made) == Need(80, 3)
    assert not made.take({(3, "input"): Need(0, 1)})  # of unknown size, and nothing is left


def test_files_are_limited_as_well() -> None:
    made = reservations()
    assert made.take({(1, "input"): Need(1, 7)})  # nine of ten
    assert not made.take({(2, "input"): Need(1, 1)})


def test_a_share_grows_as_far_as_there_is_room_and_shrinks_always() -> None:
    made = reservations()
    assert made.take({(1, "input"): Need(40, 1)})
    assert made.take({(2, "input"): Need(40, 1)})
    assert not made.take({(1, "input"): Need(41, 1)})
    assert made.take({(1, "input"): Need(40, 1)})
    assert made.take({(1, "input"): Need(30, 1)})
    assert made.take({(2, "input"): Need(50, 1)})
    made.hold((1, "output"), Need(1000, 1))  # a job that runs already
    assert made.take({(2, "input"): Need(49, 1)})
    assert not made.take({(2, "input"): Need(50, 1)})


def test_a_share_ends_with_a_probe_that_was_begun_after_all_was_written() -> None:
    made = reservations()
    assert made.take({(1, "input"): Need(40, 1), (1, "output"): Need(40, 1)})
    made.begin_probe([])
    made.end_probe(LIMITS, 0.9)
    assert reserved(made) == Need(80, 2)
    made.begin_probe([(1, "input")])
    assert made.take({(2, "input"): Need(0, 1)}) is False
    made.end_probe((Usage(50, 100, "disk"),), 0.9)
    assert reserved(made) == Need(40, 1)
    made.drop((1, "output"))
    assert reserved(made) == NOTHING


def test_a_share_that_is_taken_while_the_probe_is_under_way_stays() -> None:
    made = reservations()
    made.begin_probe([(1, "input")])
    assert made.take({(1, "input"): Need(40, 1)})
    made.end_probe(LIMITS, 0.9)
    assert reserved(made) == Need(40, 1)


@pytest.mark.parametrize("how", ["take", "hold"])
def test_a_share_that_is_taken_anew_while_the_probe_is_under_way_stays(how: str) -> None:
    """A transfer that was cut goes on before the answer comes."""
    made = reservations()
    assert made.take({(1, "input"): Need(40, 1)})
    made.begin_probe([(1, "input")])
    if how == "take":
        assert made.take({(1, "input"): Need(40, 1)})
    else:
        made.hold((1, "input"), Need(40, 1))
    made.end_probe(LIMITS, 0.9)
    assert not made.take({(2, "input"): Need(41, 1)})
    made.begin_probe([(1, "input")])
    made.end_probe(LIMITS, 0.9)
    assert made.take({(2, "input"): Need(41, 1)})


def test_how_many_fit() -> None:
    made = reservations()
    assert made.places(Need(20, 1), 100) == 4
    assert made.places(Need(20, 1), 3) == 3
    assert made.places(Need(1, 2), 100) == 3
    assert made.places(Need(1000, 1), 100) == 0
    assert made.places(Need(0, 1), 5) == 5
    made.hold((1, "output"), Need(80, 0))
    assert made.places(Need(0, 1), 5) == 0


def test_without_limits_all_fits() -> None:
    made = Reservations()
    assert made.take({(1, "input"): Need(10**18, 10**9)})
    assert made.left() is None


def test_threads_together_never_take_more_than_there_is() -> None:
    made = reservations(1.0, Usage(0, 1000, "disk"))
    granted: list[int] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        for step in range(200):
            size = chance.randrange(1, 50)
            if made.take({((number, step), "input"): Need(size, 1)}):
                granted.append(size)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reserved(made).bytes == sum(granted) <= 1000
    assert sum(granted) > 900


def test_a_disk_that_is_shared_out_is_never_overrun() -> None:
    """A simulation: whatever order things happen in, what is written stays below the limit."""
    sys.stdout.write(f"SEED={SEED}\n")
    chance = random.Random(SEED)
    limit = 1000
    made = reservations(1.0, Usage(0, limit, "disk"))
    written = 0
    left: dict[tuple[object, str], int] = {}  # what is still to be written
    over: set[tuple[object, str]] = set()
    asked: int | None = None
    refused = 0
    for step in range(20_000):
        action = chance.choice(("begin", "write", "write", "ask", "answer", "clean"))
        if action == "begin":
            size = chance.randrange(1, 200)
            if made.take({(step, "input"): Need(size, 1)}):
                left[step, "input"] = size
            else:
                refused += 1
        elif action == "write" and left:
            owner = chance.choice(sorted(left, key=str))
            size = chance.randint(0, left[owner])
            written += size
            left[owner] -= size
            if not left[owner]:
                del left[owner]
                over.add(owner)
        elif action == "ask" and asked is None:
            made.begin_probe(over)
            asked = written  # an honest probe tells what is so when it is asked, or later
        elif action == "answer" and asked is not None:
            made.end_probe((Usage(chance.randint(asked, max(asked, written)), limit, ""),), 1.0)
            asked = None
        elif action == "clean" and not chance.randrange(5):
            gone = chance.randint(0, written)
            written -= gone
            asked = None if asked is None else max(asked, written)
        assert written <= limit
    assert refused > 100


# --------------------------------------------------------------------------- what is learnt


def test_the_size_of_outputs_is_learnt_from_finished_runs_of_the_production(
    books: Bookkeeping,
) -> None:
    books.label(range(1, 6))
    production, other = books.start(), books.start()
    assert sizes.output_sizes(books.db, production.id) == []
    assert sizes.expected([]) == 0
    store = books.manager(production)
    claims = store.claim(5, GOLD)
    store.apply([submitted(claim) for claim in claims])
    assert sizes.output_sizes(books.db, production.id) == []
    store.apply([finished(claim) for claim in claims[:3]])
    found = sizes.output_sizes(books.db, production.id)
    sums = "SELECT sum(size) FROM output GROUP BY attempt ORDER BY 1"
    assert found == books.column(sums)
    assert len(found) == 3
    assert sizes.output_sizes(books.db, other.id) == []


def test_nine_in_ten_need_no_more_than_is_expected() -> None:
    assert sizes.expected([7]) == 7
    assert sizes.expected([1, 2]) == 2
    assert sizes.expected(list(range(1, 101))) == 91


def test_jobs_of_the_users_other_managers(books: Bookkeeping) -> None:
    books.label(range(1, 6))
    production = books.start()
    one, two = books.manager(production), books.manager(production)
    claims = two.claim(3, GOLD)
    two.apply([intended(claim) for claim in claims])
    two.apply([submitted(claim) for claim in claims[:2]])
    user = str(books.cell("SELECT user FROM manager LIMIT 1"))
    assert sizes.jobs_of_others(books.db, user, one.manager) == {production.id: 2}
    assert sizes.jobs_of_others(books.db, user, two.manager) == {}
    assert sizes.jobs_of_others(books.db, "nobody else", one.manager) == {}


# --------------------------------------------------------------------------- a manager's room


class Rooms:
    """The room of a manager whose probe tells of what limits it is told to."""

    def __init__(self, books: Bookkeeping, directory: Path) -> None:
        self.office = Office(books, directory, runs=range(1, 9))
        self.limits: tuple[Usage, ...] = (Usage(0, 1000, "disk"),)
        self.office.probe = self  # type: ignore[assignment]
        object.__setattr__(self.office.desk.rooms, "probe", self)
        self.desk = self.office.open()
        self.room = Room(self.desk)
        self.ask()

    def probe(self) -> Space:
        return Space(self.limits)

    def ask(self) -> None:
        """Have the space asked for, and the answer come in."""
        self.room._ask_again = 0.0
        self.room.look()
        self.office.until(lambda: not self.desk.lanes["probe"].busy)

    def use(self, used: int) -> None:
        self.limits = (Usage(used, 1000, "disk"),)
        self.ask()

    def work(self, run: int) -> Work:
        return self.office.work(Claim(run, 1, 1))

    def fetch(self, work: Work, size: int) -> bool:
        """Have it fetched as the intake would: whether it comes."""
        if not self.room.admit(work):
            return False
        work.move(Phase.FETCHING)
        try:
            self.room.expect(work, "raw", 0, size)
        except MustWait:
            work.move(Phase.CLAIMED)
            self.room.put_off(work)
            return False
        return True


@pytest.fixture
def rooms(books: Bookkeeping, tmp_path: Path) -> Rooms:
    return Rooms(books, tmp_path)


def test_ten_files_that_each_fit_do_not_all_come_at_once(rooms: Rooms) -> None:
    works = [rooms.work(run) for run in range(1, 9)]
    came = [rooms.fetch(work, 200) for work in works]
    assert came == [True] * 4 + [False] * 4  # nine tenths of 1000
    assert not any(rooms.fetch(work, 200) for work in works[4:])
    assert [work for work in works if work.waits_for] == works[4:]
    said = "Run 5 and those after it wait for space: 0.0 MB are needed for its files and outputs"
    assert rooms.office.said.count(said) == 1
    assert rooms.office.said.count("wait for space") == 1


def test_what_waits_is_fetched_when_there_is_room(rooms: Rooms) -> None:
    works = [rooms.work(run) for run in range(1, 7)]
    assert [rooms.fetch(work, 200) for work in works] == [True] * 4 + [False] * 2
    for work in works[:2]:
        work.move(Phase.READY)
        rooms.room.fetched(work)
    rooms.use(400)
    assert not rooms.fetch(works[4], 200)  # as much as before, only written
    for work in works[:2]:
        del rooms.desk.works[work.run]  # their files are gone
    rooms.use(0)
    assert rooms.fetch(works[4], 200)
    assert works[4].waits_for == ""
    assert rooms.fetch(works[5], 200)


def test_a_size_that_was_refused_is_known_the_next_time(rooms: Rooms) -> None:
    large, small = rooms.work(1), rooms.work(2)
    assert not rooms.fetch(large, 950)
    assert rooms.fetch(small, 100)
    assert not rooms.room.admit(large)
    assert large.waits_for == "waits for space"
    assert not rooms.fetch(large, 950)


def test_the_share_of_a_transfer_that_failed_ends_with_the_next_probe(rooms: Rooms) -> None:
    first, second = rooms.work(1), rooms.work(2)
    assert rooms.fetch(first, 800)
    first.move(Phase.CLAIMED)
    assert not rooms.fetch(second, 200)  # a part of the first may have stayed
    rooms.use(100)
    assert rooms.fetch(second, 200)


def test_later_files_are_taken_to_be_as_large_as_earlier_ones(rooms: Rooms) -> None:
    first = rooms.work(1)
    assert rooms.fetch(first, 500)
    rooms.room.fetched(first)
    assert not rooms.room.admit(rooms.work(2))


def test_a_link_takes_no_space(rooms: Rooms) -> None:
    work = rooms.work(1)
    assert rooms.room.admit(work)
    rooms.room.expect(work, "raw", 0, None)
    rooms.room.expect(work, "raw", 5000, 5000)


def test_jobs_that_run_are_reserved_for(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "output_sizes", lambda *_: [300])
    monkeypatch.setattr(room, "LEARN_EVERY", 0.0)
    for run in (1, 2):
        rooms.work(run).move(Phase.RUNNING)  # adopted, for instance
    rooms.ask()
    waiting = rooms.work(3)
    assert rooms.room.places(10) == 1
    assert rooms.fetch(waiting, 0)
    assert not rooms.fetch(rooms.work(4), 0)
    del rooms.desk.works[1]
    rooms.use(300)  # its output has been written
    assert not rooms.fetch(rooms.work(5), 0)
    del rooms.desk.works[2]
    rooms.use(100)
    assert rooms.fetch(rooms.work(6), 0)


def test_outputs_of_other_managers_jobs_are_reserved_for(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "output_sizes", lambda *_: [300])
    monkeypatch.setattr(room, "LEARN_EVERY", 0.0)
    other = rooms.office.books.manager(rooms.office.production)
    claims = other.claim(2, GOLD)
    other.apply([intended(claim) for claim in claims])
    other.apply([submitted(claim) for claim in claims])
    rooms.ask()
    assert rooms.room.places(10) == 1
    other.apply([finished(claim) for claim in claims])
    rooms.ask()
    assert rooms.room.places(10) == 3


def test_a_remark_of_the_probe_is_said_once(rooms: Rooms) -> None:
    def probe() -> Space:
        return Space(rooms.limits, "No quota is set")

    rooms.probe = probe  # type: ignore[method-assign]
    for _ in range(3):
        rooms.ask()
    assert rooms.office.said.count("No quota is set") == 1


def test_a_probe_that_does_not_answer_counts_as_failed(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SILENCE", 0.0)
    answer = threading.Event()

    def probe() -> Space:
        answer.wait()
        return Space(rooms.limits)

    rooms.probe = probe  # type: ignore[method-assign]
    rooms.room._ask_again = 0.0
    rooms.room.look()
    for _ in range(3):
        rooms.room.look()
    assert not rooms.room.may_begin(downloads=True)
    assert rooms.office.said.count("there was no answer within") == 1
    answer.set()
    rooms.office.until(lambda: rooms.room.may_begin(downloads=True))


def test_a_probe_that_takes_long_is_asked_more_rarely(rooms: Rooms) -> None:
    rooms.room._asked -= 5.0  # as if it had been asked five seconds before its answer came
    rooms.room._probed(Space(rooms.limits))
    rooms.room.look()
    assert not rooms.desk.lanes["probe"].busy
