"""Each cause why runs do not go on is found where it is, in words, with a remedy that works."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import desks
import pytest
from bookkeeping import (
    ANY,
    GOLD,
    Bookkeeping,
    answer,
    bookkeeping,
    failed,
    finish,
    finish_all,
    intended,
    python,
    run_job,
)
from experiment import experiment

from production.cli import COMMANDS, command_parser
from production.explain import gather
from production.explain.causes import CAUSES, Finding, of_production
from production.explain.run_causes import of_run
from production.identity import this_process
from production.model import JobState, Production, RunFilter
from production.store import requests

DOCS = Path(__file__).parent.parent / "docs" / "commands.md"


class Questioner:
    """A production of ten runs from 2000 on, and somebody who asks about it."""

    def __init__(self, books: Bookkeeping) -> None:
        self.books = books
        books.label(range(2000, 2010))
        self.production = books.start(wanted=ANY)
        self.configure("")

    def configure(self, text: str) -> None:
        """The configuration; the data directory is where the database is."""
        path = self.books.path.parent / "production.toml"
        if "[space]" not in text:
            text += '\n[space]\nprobe = "statvfs"'
        if "spacelim" not in text:
            text = f'[defaults]\nspacelim = "100%"\n{text.replace("[defaults]", "")}'
        path.write_text(f'data = "{path.parent}"\n{text}')

    def ask(
        self, run: int | None = None, of: Production | None = None, *, quick: bool = False
    ) -> list[Finding]:
        """What is found."""
        production = of or self.production
        facts = gather.gather(
            self.books.db, production, option="", run=run, config=None, ask=not quick
        )
        assert facts.around.config_trouble == ""
        found = of_production(facts) if facts.run is None else of_run(facts, facts.run)
        for finding in found:
            assert finding.cause in CAUSES
            check_commands(finding.remedy)
        return found

    def causes(self, run: int | None = None, **how: object) -> list[str]:
        """Their names."""
        return [finding.cause for finding in self.ask(run, **how)]  # type: ignore[arg-type]

    def says(self, cause: str, run: int | None = None, **how: object) -> str:
        """The sentence on a cause, which must be found, and its remedy."""
        (found,) = [f for f in self.ask(run, **how) if f.cause == cause]  # type: ignore[arg-type]
        return f"{found.what} -> {found.remedy}"

    def change(self, sql: str) -> None:
        """By hand."""
        with closing(sqlite3.connect(self.books.path)) as connection:
            connection.execute(sql)
            connection.commit()

    def started(self, manager: int, wanted: RunFilter, nproc: int = 10) -> None:
        """With these options."""
        requests.note_start(self.books.db, manager, this_process(), wanted, nproc, 0.9)

    def steer(self, manager: int, verb: str, argument: str = "") -> None:
        """A manager is asked for something, and does it."""
        who = this_process()
        (id_,) = requests.ask(self.books.db, [manager], verb, argument, who)
        requests.answer(self.books.db, id_, requests.Answer(True, "done"))


def check_commands(remedy: str) -> None:
    """A remedy can be typed as it stands."""
    names = "|".join(COMMANDS)
    for match in re.finditer(rf"(run_production\.py|production ({names}))\b([^;]*)", remedy):
        parser, _ = command_parser(match[2] or "run", "test")
        parser.parse_args(shlex.split(match[3]))


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Questioner]:
    with bookkeeping(tmp_path) as books:
        yield Questioner(books)


def claim_and_die(books: Bookkeeping) -> None:
    """A manager that claims three runs, has a job of one of them, and is gone."""
    code = """
        import os, sys
        sys.path[:0] = [sys.argv[2]]
        from pathlib import Path
        from bookkeeping import Database, GOLD, intended, productions, submitted
        from production.store import managers
        from production.identity import this_process
        from production.store.runs import RunStore
        db = Database(Path(sys.argv[1]))
        production = productions.find(db, "alcapana")
        store = RunStore(db, production, managers.register(db, this_process(), production.id))
        claims = store.claim(3, GOLD)
        store.apply([intended(claims[0]), submitted(claims[0])])
        os._exit(0)
    """
    answer(python(code, books.path, Path(__file__).parent))


# ------------------------------------------------------------------------------- the production


def test_a_production_that_is_done(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    finish_all(store)
    assert asker.causes() == ["finished"]
    assert "All is finished since " in asker.says("finished")
    assert "Run 2003 is finished: attempt 1, by" in asker.says("finished", 2003)


def test_a_production_without_runs(asker: Questioner) -> None:
    asker.change("DELETE FROM alcapana_v1")
    assert asker.causes() == ["no_runs"]


def test_attempts_used_up(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    for claim in store.claim(10, GOLD):
        run_job(store, claim)
        store.apply([failed(claim, max_attempts=1)])
    assert asker.causes() == ["attempts_used_up"]
    said = asker.says("attempts_used_up")
    assert "10 runs are at E" in said
    assert "such as run 2000: alcapana was killed by SIGSEGV" in said
    assert "production retry --production=alcapana --version=1" in said
    assert "the last one: alcapana was killed" in asker.says("attempts_used_up", 2004)


def test_nobody_at_work(asker: Questioner) -> None:
    assert asker.causes() == ["no_manager", "claimable"]
    assert "10 runs are left, and no manager is at work" in asker.says("no_manager")
    assert "run_production.py --production=alcapana --version=1" in asker.says("no_manager", 2001)


@pytest.mark.slow
def test_a_manager_that_is_gone(asker: Questioner) -> None:
    claim_and_die(asker.books)
    said = asker.says("dead_manager", quick=True)
    assert "is gone. It holds 2 claims and 1 job" in said
    assert asker.causes(2000, quick=True) == ["dead_manager"]
    assert asker.causes(2001, quick=True) == ["dead_manager"]
    assert asker.causes(2007, quick=True) == ["no_manager"]


def test_a_manager_that_has_ended_and_still_holds_runs(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    store.claim(1, GOLD)
    asker.change("UPDATE manager SET stopped = '2026-01-01 00:00:00.000000'")
    assert "which has ended" in asker.says("dead_manager", 2000)


def test_a_host_that_is_silent(asker: Questioner) -> None:
    asker.books.manager(asker.production).claim(2, GOLD)
    asker.change(
        "UPDATE manager SET boot = 'another', host = 'lxplus7', "
        "beat_at = '2026-01-01 00:00:00.000000'"
    )
    said = asker.says("host_down")
    assert "on lxplus7) has given no sign of life for" in said
    assert "production recover --watch=11m" in said
    assert asker.causes(2000) == ["host_down"]


def test_a_host_elsewhere_that_gives_signs_of_life_is_at_work(asker: Questioner) -> None:
    asker.books.manager(asker.production).claim(2, GOLD)
    asker.change("UPDATE manager SET boot = 'another', host = 'lxplus7'")
    assert asker.causes() == ["fetching", "claimable"]


def test_a_manager_that_is_stopped(asker: Questioner) -> None:
    asker.books.manager(asker.production).claim(2, GOLD)
    asker.change("UPDATE manager SET beat_at = '2026-01-01 00:00:00.000000'")
    assert f"kill -CONT {this_process().pid}" in asker.says("stopped_manager")
    assert "stopped_manager" in asker.causes(2000)


def test_what_a_manager_was_asked(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    asker.steer(store.manager, "pause")
    assert "was asked to pause" in asker.says("paused")
    assert "paused" in asker.causes(2005)
    store.claim(1, GOLD)
    assert asker.causes(2000) == ["paused", "fetching"]
    asker.steer(store.manager, "resume")
    assert "paused" not in asker.causes()
    asker.steer(store.manager, "leave")
    assert "was asked to end" in asker.says("stopping")


# ------------------------------------------------------------------------------- space and jobs


def test_no_space(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    asker.configure('[defaults]\nspacelim = "0.001%"')
    said = asker.says("space")
    assert re.search(r"Disk space is short: \d+% of it is used \(statvfs .*the limit is 0%", said)
    assert "space" in asker.causes(2001)
    assert "space" not in asker.causes(quick=True)
    asker.steer(store.manager, "spacelim", "100%")
    asker.configure("")
    assert "space" not in asker.causes()


def test_space_that_cannot_be_found_out(
    asker: Questioner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asker.books.manager(asker.production)
    monkeypatch.setenv("PATH", str(tmp_path))  # no command at all
    asker.configure('[space]\nprobe = "mmlsquota"')
    assert "could not be found out" in asker.says("space_unknown")


def test_a_batch_system_that_does_not_answer(
    asker: Questioner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = asker.books.manager(asker.production)
    (claim,) = store.claim(1, GOLD)
    run_job(store, claim)
    asker.change("UPDATE attempt SET batch = 'slurm', job = '17'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "squeue" in asker.says("batch_silent")
    assert "squeue" in asker.says("batch_silent", 2000)


@pytest.mark.parametrize(
    ("state", "cause", "words", "of_the_run"),
    [
        (JobState.HELD, "held_jobs", "Held by the batch system: 2 jobs, such as that of run 2000: "
         "bad nodes", "is held by the batch system: bad nodes"),
        (JobState.PENDING, "queued", "Waiting in the batch system: 2 jobs", "waits for its turn"),
        (JobState.RUNNING, "running", "Running: 2 jobs", "runs; submitted"),
        (JobState.GONE, "vanished", "Unknown to the batch system: 2 jobs", "has ended, or was"),
        (None, "submitted", "In the batch system: 2 jobs", "is in the batch system"),
    ],
)  # fmt: skip
def test_what_the_batch_system_says(
    asker: Questioner,
    monkeypatch: pytest.MonkeyPatch,
    state: JobState | None,
    cause: str,
    words: str,
    of_the_run: str,
) -> None:
    batch = desks.Batch()
    batch.state, batch.why = state or JobState.GONE, "bad nodes"
    monkeypatch.setattr(gather, "open_batch", lambda _name, _options: batch)
    store = asker.books.manager(asker.production)
    for claim in store.claim(2, GOLD):
        run_job(store, claim)
    asker.change("UPDATE attempt SET batch = 'slurm'")
    assert words in asker.says(cause, quick=state is None)
    assert of_the_run in asker.says(cause, 2001, quick=state is None)
    assert "limits" not in asker.causes()
    asker.steer(store.manager, "queue", "long")
    told = [finding.cause for finding in asker.ask() if "in queue long" in finding.what]
    assert told == [cause] * (cause == "queued")


def test_jobs_that_wait_in_a_manager_are_not_taken_for_lost(asker: Questioner) -> None:
    """Those of the local machine wait in its memory; one may be about to be submitted."""
    store = asker.books.manager(asker.production)
    waits, ended, begins = store.claim(3, GOLD)
    for claim in (waits, ended):
        run_job(store, claim)
    store.apply([intended(begins)])
    spool = asker.books.path.parent / "spool"
    (spool / "started").mkdir(parents=True)
    asker.change(f"UPDATE attempt SET spool = '{spool}' WHERE run = {ended.run}")
    assert "In the batch system: 2 jobs" in asker.says("submitted")
    assert f"1 job, such as that of run {ended.run}" in asker.says("vanished")
    assert asker.causes(waits.run) == asker.causes(begins.run) == ["submitted"]
    assert asker.causes(ended.run) == ["vanished"]


def test_a_manager_with_as_many_jobs_as_it_may(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    for claim in store.claim(2, GOLD):
        run_job(store, claim)
    asker.configure("[defaults]\nnproc = 2")
    said = asker.says("limits", quick=True)
    assert "has 2 jobs, as many as it may by default" in said
    assert "limits" in asker.causes(2007, quick=True)
    asker.steer(store.manager, "nproc", "3")
    assert "limits" not in asker.causes(quick=True)
    asker.steer(store.manager, "nproc", "2")
    assert "as many as it may ->" in asker.says("limits", quick=True)


def test_a_manager_with_as_many_jobs_as_it_was_started_for(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    asker.started(store.manager, GOLD, nproc=3)
    claims = store.claim(3, GOLD)
    for claim in claims:
        run_job(store, claim)
    asker.configure("[defaults]\nnproc = 2")
    assert "has 3 jobs, as many as it may ->" in asker.says("limits", quick=True)
    finish(store, claims[0])
    assert "limits" not in asker.causes(quick=True)  # it may have a third one
    asker.steer(store.manager, "nproc", "1")
    assert "has 2 jobs, as many as it may ->" in asker.says("limits", quick=True)


def test_claims(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    one, two = store.claim(2, GOLD)
    assert "place among the jobs: 2 runs" in asker.says("fetching")
    assert "Run 2000 was claimed by Manager 1" in asker.says("fetching", one.run)
    store.apply([intended(two)])
    assert "The job of run 2001" in asker.says("submitted", two.run, quick=True)


# ------------------------------------------------------------------------------- runs at N


def test_a_run_that_is_not_there(asker: Questioner) -> None:
    assert "is in no dataset" in asker.says("not_in_production", 1)
    asker.books.label([2300], "Ti", quality="silver")
    assert "It is in Ti (quality silver)" in asker.says("not_in_production", 2300)


def test_runs_whose_base_is_not_done(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    (done,) = store.claim(1, GOLD)
    finish(store, done)
    derived = asker.books.start("rootana", base=asker.production, wanted=ANY)
    said = asker.says("waiting_for_base", of=derived)
    assert "9 runs are not finished yet by alcapana_v1" in said
    assert "there 9 runs are left, and 0 at E" in said
    assert "there it stands at N" in asker.says("waiting_for_base", 2001, of=derived)
    assert asker.causes(2000, of=derived) == ["no_manager"]
    asker.change("INSERT INTO rootana_v1 (run) VALUES (2300)")
    assert "is not in alcapana_v1" in asker.says("waiting_for_base", 2300, of=derived)


def test_runs_that_rest(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    (claim,) = store.claim(1, GOLD)
    run_job(store, claim)
    store.apply([failed(claim, wait=300.0)])
    assert "1 run is resting after a failure, the first until 20" in asker.says("back_off")
    said = asker.says("back_off", 2000)
    assert "for another 5m 00s" in said or "for another 4m" in said
    assert asker.causes(2000) == ["back_off"]


def test_a_run_does_not_seem_to_rest_for_days_because_a_clock_is_ahead(
    asker: Questioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = asker.books.manager(asker.production)
    (claim,) = store.claim(1, GOLD)
    run_job(store, claim)
    right = time.time()
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: right + 1e6)
        wrong.setattr(time, "time_ns", lambda: round((right + 1e6) * 1e9))
        store.apply([failed(claim, wait=300.0)])
    assert "for another 5m 00s" in asker.says("back_off", 2000)


def test_runs_outside_of_what_managers_choose(asker: Questioner) -> None:
    asker.books.label([2000, 2001], quality="silver")
    asker.change("DELETE FROM datasets WHERE run = 2002")
    assert "2 runs are of dataset SiR2 and of quality silver" in asker.says("outside")
    assert "1 run is in no dataset" in asker.says("no_dataset")
    assert "is in SiR2 (quality silver)" in asker.says("outside", 2000)
    assert "is in no dataset" in asker.says("no_dataset", 2002)
    assert asker.causes(2003) == ["no_manager"]
    asker.configure('[defaults]\nquality = ["any"]')
    assert "outside" not in asker.causes()
    asker.configure('[defaults]\ndataset = ["Al50"]\ntranche = [3]')
    assert "of Al50 of tranche 3" in asker.says("outside", 2003)


def test_runs_that_no_manager_at_work_was_started_for(asker: Questioner) -> None:
    """That one without options would take them is no help while none is there."""
    asker.books.label(range(2000, 2004), quality="silver")
    asker.books.label([2009], "Al50", quality="gold", tranche=2)
    one, two = (asker.books.manager(asker.production).manager for _ in range(2))
    asker.started(one, RunFilter(("Al50",)))
    asker.started(two, RunFilter((), (2,), ()))
    said = asker.says("outside", 2007)
    assert f"Run 2007 is in SiR2 (quality gold): Manager {one} (" in said
    assert ") takes quality gold of Al50; Manager " in said
    assert ") takes any quality of tranche 2 -> run_production.py" in said
    assert asker.causes(2009) == ["claimable"]
    assert f"tranche and number, by Manager {one} (" in asker.says("claimable", 2009)
    asker.started(two, RunFilter((), (), ()))
    assert "outside" not in asker.causes()
    assert "10 runs can be claimed, but Manager" in asker.says("claimable")
    assert asker.causes(2001) == ["claimable"]
    assert f"tranche and number, by Manager {two} (" in asker.says("claimable", 2001)


def test_an_idle_manager_is_wondered_at_only_when_it_would_take_the_runs(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    store.claim(1, GOLD)
    idle = asker.books.manager(asker.production).manager
    asker.started(idle, RunFilter(("Al50",)))
    assert "9 runs can be claimed, when a manager has a free place" in asker.says("claimable")
    asker.started(idle, GOLD)
    said = asker.says("claimable")
    assert f"9 runs can be claimed, but Manager {idle} (" in said
    assert ", which takes quality gold, holds none: something keeps it" in said


def test_a_run_in_no_dataset_is_for_who_does_not_choose(asker: Questioner) -> None:
    asker.change("DELETE FROM datasets WHERE run = 2002")
    manager = asker.books.manager(asker.production).manager
    assert "is in no dataset" in asker.says("no_dataset", 2002)
    asker.started(manager, RunFilter((), (), ()))
    assert asker.causes(2002) == ["claimable"]


def test_runs_that_can_be_claimed(asker: Questioner) -> None:
    assert "10 runs can be claimed ->" in asker.says("claimable")
    store = asker.books.manager(asker.production)
    assert "10 runs can be claimed, but Manager 1" in asker.says("claimable")
    assert "Nothing is in the way of run 2004" in asker.says("claimable", 2004)
    store.claim(1, GOLD)
    assert "9 runs can be claimed, when a manager has a free place" in asker.says("claimable")


# ------------------------------------------------------------------------------- all of them


def test_every_cause_is_looked_for_here_and_documented() -> None:
    source = Path(__file__).read_text()
    table = DOCS.read_text().partition("| cause | meaning |")[2].partition("\n\n")[0]
    documented = {
        name
        for line in table.splitlines()[2:]
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert documented == set(CAUSES)
    for cause in CAUSES:
        assert f'"{cause}"' in source, cause


def test_a_broken_configuration_hides_nothing(asker: Questioner) -> None:
    (asker.books.path.parent / "production.toml").write_text("nonsense")
    facts = gather.gather(
        asker.books.db, asker.production, option="", run=None, config=None, ask=True
    )
    assert "production.toml" in facts.around.config_trouble
    assert [f.cause for f in of_production(facts)] == ["no_manager", "claimable"]


def test_what_has_moved_on_meanwhile_is_no_failure(asker: Questioner) -> None:
    store = asker.books.manager(asker.production)
    store.claim(1, GOLD)
    facts = gather.gather(
        asker.books.db, asker.production, option="", run=2000, config=None, ask=False
    )
    assert facts.run is not None
    assert of_run(replace(facts, active=()), facts.run) == []


@pytest.mark.slow
def test_a_real_manager_is_explained_in_each_phase(tmp_path: Path) -> None:
    with experiment(tmp_path, runs=(2091, 2092)) as e:

        def causes(*run: str) -> Mapping[str, str]:
            said = e.production("explain", *run, "--production=count", "--output=json")
            return {finding["cause"]: finding["what"] for finding in json.loads(said)}

        def until(what: Callable[[], object], cause: str, *run: str) -> None:
            manager.until(lambda: cause in causes(*run), cause)
            what()

        e.silence_archive()
        manager = e.start("--nproc=1")
        manager.until_it_says("Claimed run", 2)
        assert "Claimed" in causes()["fetching"]
        assert "was claimed by" in causes("2091")["fetching"]
        e.hold("payload")
        e.open_archive()
        until(lambda: None, "running", "2091")
        assert causes()["running"] == "Running: 1 job"
        e.production("pause", "--production=count")
        assert "paused" in causes("2092")
        e.production("resume", "--production=count")
        manager.send(signal.SIGKILL)
        manager.wait()
        assert {"dead_manager", "no_manager"} <= set(causes())
        assert set(causes("2091")) == {"dead_manager"}
        e.finish()
        assert set(causes()) == {"finished"}
