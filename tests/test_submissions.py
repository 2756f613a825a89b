"""What becomes of submissions of which some are not answered: nothing is lost, nothing blamed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from bookkeeping import Bookkeeping
from desks import Office
from job_orders import Workshop

from production.batch.base import Answer, open_batch
from production.errors import BatchError, QueryFailed, SubmissionRefused
from production.manager.jobs import Jobs
from production.manager.work import Phase
from production.model import JobHandle, JobOrder

RUNS = range(1, 6)
# Accepts the first two jobs, refuses the third, does not answer to the fourth.
SBATCH = """\
#!/bin/sh
cat > /dev/null
echo >> {calls}
case $(wc -l < {calls}) in
1|2) wc -l < {calls} | tr -d ' ' ;;
3) echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1 ;;
*) echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv" >&2; exit 1 ;;
esac
"""


def test_each_job_has_its_own_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH.format(calls=tmp_path / "calls"))
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    workshop = Workshop(tmp_path)
    orders = [workshop.order(run=run) for run in RUNS]
    answers = open_batch("slurm", {"arrays": False}).submit(orders)
    assert answers[:2] == ["1", "2"]
    assert isinstance(answers[2], SubmissionRefused)
    assert isinstance(answers[3], BatchError)
    assert not isinstance(answers[3], SubmissionRefused)
    assert answers[4] is None  # after that nothing more was tried
    assert (tmp_path / "calls").read_text().count("\n") == 4


def test_what_was_not_tried_is_submitted_later(books: Bookkeeping, tmp_path: Path) -> None:
    office = Office(books, tmp_path, downloads=False, runs=RUNS, nproc=5, nprep=0)
    open_ = BatchError(system="local", what="it did not answer")
    submit = office.batch.submit
    tried: list[int] = []

    def first_time(jobs: Sequence[JobOrder]) -> list[Answer]:
        tried.append(len(jobs))
        if len(tried) > 1:
            return submit(jobs)
        return [*submit(jobs[:2]), open_, None, None]

    office.batch.submit = first_time  # type: ignore[method-assign]
    desk = office.open()
    jobs = Jobs(desk)
    for claim in desk.store.claim(5, desk.settings.filter):
        office.work(claim, Phase.READY)
    jobs.advance()
    office.until(lambda: books.cell("SELECT count(*) FROM run WHERE status = 'R'") == 2)
    phases = [work.phase for work in desk.works.values()]
    assert phases == [Phase.RUNNING] * 2 + [Phase.SUBMITTING] + [Phase.READY] * 2
    jobs.advance()  # at once: others of them were accepted
    office.until(lambda: books.cell("SELECT count(*) FROM run WHERE status = 'R'") == 4)
    assert tried == [5, 2]
    assert office.said.count("it did not answer") == 0
    assert books.cell("SELECT count(*) FROM attempt WHERE outcome IS NOT NULL") == 0


def test_when_nothing_is_answered_it_rests(books: Bookkeeping, tmp_path: Path) -> None:
    office = Office(books, tmp_path, downloads=False, runs=RUNS, nproc=2, nprep=3, pause=1000.0)
    open_ = BatchError(system="local", what="it did not answer")
    office.batch.submit = lambda jobs: [open_, *[None] * (len(jobs) - 1)]  # type: ignore[method-assign]
    desk = office.open()
    jobs = Jobs(desk)
    for claim in desk.store.claim(5, desk.settings.filter):
        office.work(claim, Phase.READY)
    jobs.advance()
    office.until(lambda: office.said.count("it did not answer. Will try again later.") == 1)
    jobs.advance()
    phases = sorted(work.phase for work in desk.works.values())
    assert phases == [Phase.READY] * 4 + [Phase.SUBMITTING]


def test_what_was_not_tried_is_given_back_by_a_manager_that_is_ending(
    books: Bookkeeping, tmp_path: Path
) -> None:
    office = Office(books, tmp_path, downloads=False, runs=RUNS, nproc=5, nprep=0)
    open_ = BatchError(system="local", what="it did not answer")
    desk = office.open()

    def submit(jobs: Sequence[JobOrder]) -> list[Answer]:
        desk.results.put(lambda: desk.close("stopped by somebody"))
        return [open_, *[None] * (len(jobs) - 1)]

    office.batch.submit = submit  # type: ignore[method-assign]
    jobs = Jobs(desk)
    for claim in desk.store.claim(5, desk.settings.filter):
        office.work(claim, Phase.READY)
    jobs.advance()
    office.until(lambda: books.cell("SELECT count(*) FROM run WHERE status = 'N'") == 4)
    assert [work.phase for work in desk.works.values()] == [Phase.SUBMITTING]


@pytest.mark.parametrize("asked", ["pause", "close"])
def test_orders_that_are_being_written_are_put_off(
    books: Bookkeeping, tmp_path: Path, asked: str
) -> None:
    office = Office(books, tmp_path, downloads=False, runs=RUNS, nproc=5, nprep=0)
    desk = office.open()
    jobs = Jobs(desk)
    for claim in desk.store.claim(5, desk.settings.filter):
        office.work(claim, Phase.READY)
    jobs.advance()
    if asked == "pause":
        desk.paused = True
        office.until(lambda: all(work.phase is Phase.READY for work in desk.works.values()))
        assert len(desk.works) == 5
    else:
        desk.close("stopped by somebody")
        office.until(lambda: books.cell("SELECT count(*) FROM run WHERE status = 'N'") == 5)
    assert office.batch.submitted == []


def test_pbs_that_does_not_tell_its_dialect_is_unknown_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qstat = tmp_path / "qstat"
    qstat.write_text("#!/bin/sh\n")
    qstat.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    order = Workshop(tmp_path).order()
    with pytest.raises(QueryFailed):
        open_batch("pbs", {}).poll([JobHandle(order.name, order.spool)])
