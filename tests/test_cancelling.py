"""Cancelling jobs while the batch system's server answers seldom or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from job_orders import Workshop, handle

from production.batch import BatchSystem, cluster, open_batch
from production.batch.together import Place
from production.errors import BatchError, QueryFailed
from production.model import JobHandle

# Does not answer as often as there are lines in `silences`.
SQUEUE = """\
#!/bin/sh
if [ -s {d}/silences ]; then
    sed -i 1d {d}/silences
    echo "slurm_load_jobs error: Unable to contact slurm controller" >&2
    exit 1
fi
echo "JOBID|STATE|PARTITION|REASON|NAME"
cat {d}/queue
"""
SCANCEL = """\
#!/bin/sh
shift
for id; do
    echo "$id" >> {d}/deleted
    sed -i "/^$id|/d" {d}/queue
done
"""


class Server:
    """A queue in files, which squeue and scancel read and change."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.queue, self.silences = directory / "queue", directory / "silences"
        for name, text in (("squeue", SQUEUE), ("scancel", SCANCEL)):
            command = directory / "bin" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(text.format(d=directory))
            command.chmod(0o755)

    def has(self, *jobs: tuple[str, str]) -> None:
        self.queue.write_text("".join(f"{i}|RUNNING|main|None|{name}\n" for i, name in jobs))

    def is_silent(self, times: int) -> None:
        self.silences.write_text("\n" * times)

    @property
    def deleted(self) -> list[str]:
        file = self._directory / "deleted"
        return sorted(file.read_text().split()) if file.exists() else []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return Server(tmp_path)


@pytest.fixture
def system() -> BatchSystem:
    return open_batch("slurm", {})


def jobs(directory: Path, *ids: str | None) -> list[JobHandle]:
    """Jobs that another manager submitted, of which some ids were never recorded."""
    workshop = Workshop(directory)
    orders = [workshop.order(run=run) for run in range(1, len(ids) + 1)]
    for order in orders:
        Place(order.name).write(order.spool)
    return [handle(order, id_) for order, id_ in zip(orders, ids, strict=True)]


def test_a_query_that_fails_does_not_keep_known_jobs_from_being_deleted(
    server: Server, system: BatchSystem, tmp_path: Path
) -> None:
    seven, eight = jobs(tmp_path, "7", "8")
    server.has(("7", seven.name), ("8", eight.name))
    server.is_silent(1)
    system.cancel([seven, eight])
    assert server.deleted == ["7", "8"]


def test_a_job_whose_id_only_a_later_answer_tells_is_deleted_then(
    server: Server, system: BatchSystem, tmp_path: Path
) -> None:
    seven, lost = jobs(tmp_path, "7", None)
    server.has(("7", seven.name), ("8", lost.name))
    server.is_silent(1)
    system.cancel([seven, lost])
    assert server.deleted == ["7", "8"]


def test_that_a_server_does_not_answer_is_told_after_the_jobs_have_been_deleted(
    server: Server, system: BatchSystem, tmp_path: Path
) -> None:
    (seven,) = jobs(tmp_path, "7")
    server.has(("7", seven.name))
    server.is_silent(1000)
    with pytest.raises(QueryFailed, match="Unable to contact"):
        system.cancel([seven])
    assert server.deleted == ["7"]


def test_of_a_server_that_hangs_each_command_is_not_waited_for(
    server: Server, system: BatchSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_CHUNK", 1)
    monkeypatch.setenv("PRODUCTION_TIMEOUT", "0.5")
    (tmp_path / "bin" / "scancel").write_text(f"#!/bin/sh\necho >> {tmp_path}/deleted; sleep 60\n")
    server.is_silent(1)
    with pytest.raises(QueryFailed, match=r"scancel .* did not answer within"):
        system.cancel(jobs(tmp_path, "7", "8"))
    assert (tmp_path / "deleted").read_text() == "\n"


def test_when_no_id_is_known_and_none_is_told_that_is_said_at_once(
    server: Server, system: BatchSystem, tmp_path: Path
) -> None:
    server.is_silent(1)
    with pytest.raises(BatchError, match="Unable to contact"):
        system.cancel(jobs(tmp_path, None))
    assert server.deleted == []
