"""Giving up an attempt: it never starts, publishes nothing, and what it left is cleared away."""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from job_orders import Workshop
from stale_files import stale

from production.errors import SpoolTrouble
from production.job.clean import discard_outputs, discard_spool, remove_tree
from production.job.fence import revoke
from production.model import JobOrder

SHA256 = "0" * 64


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


# --------------------------------------------------------------------------- revoke


def test_an_attempt_that_never_started_can_be_forbidden(workshop: Workshop) -> None:
    spool = workshop.order().spool
    assert revoke(spool)
    assert revoke(spool)  # also by the next manager
    assert not (spool / "revoked").exists()


def test_an_attempt_that_has_started_is_told_not_to_publish(workshop: Workshop) -> None:
    order = workshop.order()
    workshop.run(order)
    assert not revoke(order.spool)
    assert (order.spool / "revoked").exists()
    assert not list(order.spool.glob("revoking.*"))


def test_an_attempt_without_spool_cannot_start(tmp_path: Path) -> None:
    assert revoke(tmp_path / "nothing")


def test_a_spool_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolTrouble, match=r"file: Not a directory"):
        revoke(tmp_path / "file")


def test_either_the_job_starts_or_it_is_forbidden(workshop: Workshop) -> None:
    for run in range(20):
        order = workshop.order(run=run)
        job = workshop.start(order)
        time.sleep(random.uniform(0, 0.02))
        forbidden = revoke(order.spool)
        code = job.wait(timeout=60)
        assert (code == 91) == forbidden
        assert code in (0, 91, 98)
        assert order.outputs[0].final.exists() == (code == 0)


# --------------------------------------------------------------------------- clear away


def discard(workshop: Workshop, order: JobOrder) -> None:
    discard_outputs(order.spool, order.outputs)
    discard_spool(order.spool, workshop.done)


def leave_behind(order: JobOrder, *, published: bool) -> None:
    """What a wrapper leaves that is killed while it publishes."""
    manifest = ""
    for plan in order.outputs:
        plan.temporary.parent.mkdir(parents=True, exist_ok=True)
        plan.temporary.write_text("x\n")
        found = plan.temporary.stat()
        manifest += (
            f"{found.st_size} {found.st_mtime_ns // 10**9} {found.st_ino} {SHA256} {plan.final}\n"
        )
        if published:
            plan.final.hardlink_to(plan.temporary)
    (order.spool / "manifest").write_text(manifest)


@pytest.mark.parametrize("published", [True, False])
def test_an_unfinished_attempt_leaves_nothing(workshop: Workshop, published: bool) -> None:
    order = workshop.order(outputs=("tree", "hist"))
    leave_behind(order, published=published)
    (workshop.done / order.spool.name).touch()
    discard(workshop, order)
    assert not order.spool.exists()
    assert list(workshop.done.iterdir()) == []
    assert [p for p in (workshop.directory / "data").rglob("*") if p.is_file()] == []
    discard(workshop, order)  # once more does no harm


@pytest.mark.parametrize("change", ["content", "time"])
def test_the_file_of_somebody_else_stays(workshop: Workshop, change: str) -> None:
    order = workshop.order()
    leave_behind(order, published=False)
    plan = order.outputs[0]
    plan.final.write_text("longer than ours\n" if change == "content" else "x\n")
    if change == "time":
        os.utime(plan.final, (1e9, 1e9))
    discard(workshop, order)
    assert plan.final.exists()
    assert not plan.temporary.exists()


def test_a_manifest_that_makes_no_sense_frees_nothing(workshop: Workshop) -> None:
    order = workshop.order()
    leave_behind(order, published=True)
    manifest = order.spool / "manifest"
    manifest.write_bytes(b"\0\0\xff\n" + manifest.read_bytes()[5:])
    discard(workshop, order)
    assert order.outputs[0].final.exists()
    assert not order.spool.exists()


def test_a_finished_attempt_keeps_its_outputs(workshop: Workshop) -> None:
    order = workshop.order()
    workshop.run(order)
    discard_spool(order.spool, workshop.done)
    assert not order.spool.exists()
    assert list(workshop.done.iterdir()) == []
    assert order.outputs[0].final.exists()


def test_an_output_that_cannot_be_removed_is_reported(workshop: Workshop) -> None:
    order = workshop.order()
    order.outputs[0].temporary.mkdir(parents=True)
    with pytest.raises(SpoolTrouble, match=str(order.outputs[0].temporary)):
        discard(workshop, order)
    assert order.spool.exists()
    shutil.rmtree(order.outputs[0].temporary)
    discard(workshop, order)
    assert not order.spool.exists()


def test_an_output_that_cannot_be_seen_now_is_not_forgotten(workshop: Workshop) -> None:
    order = workshop.order()
    leave_behind(order, published=True)
    final = order.outputs[0].final
    with stale(final), pytest.raises(SpoolTrouble, match=str(final)):
        discard(workshop, order)
    assert final.exists()
    discard(workshop, order)  # its manifest is still there
    assert not final.exists()


def test_outputs_that_are_published_meanwhile_are_taken_back_or_not_made(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrapper may not see yet that it was revoked: on NFS it remembers that for seconds."""
    order = workshop.order(outputs=("tree", "hist"))
    leave_behind(order, published=False)
    to_publish = iter(order.outputs)
    unlink = Path.unlink

    def publish_next() -> None:
        for plan in to_publish:
            os.link(plan.temporary, plan.final)
            break

    def slowly(path: Path, missing_ok: bool = False) -> None:
        publish_next()
        unlink(path, missing_ok=missing_ok)
        publish_next()

    monkeypatch.setattr(Path, "unlink", slowly)
    discard_outputs(order.spool, order.outputs)
    assert [plan.final for plan in order.outputs if plan.final.exists()] == []


def test_a_spool_that_another_host_removes_at_the_same_time_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_gone(handle: int) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    (tmp_path / "spool" / "started").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", is_gone)
        remove_tree(tmp_path / "spool")
    remove_tree(tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


def test_outputs_that_cannot_exist_are_no_trouble(workshop: Workshop) -> None:
    order = workshop.order()
    (workshop.directory / "data").write_text("a file where a directory should be")
    discard(workshop, order)
    assert not order.spool.exists()
