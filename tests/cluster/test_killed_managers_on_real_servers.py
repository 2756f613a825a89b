"""Managers that are killed before, during and after submissions: nothing is lost, nothing doubled.

The environment variable KILLS says how many are killed, KILL_SEED repeats a sequence.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from on_cluster import OnCluster
from servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("KILLS", "10"))
SEED = int(os.environ.get("KILL_SEED", random.randrange(2**32)))
RUNS = range(1, 4 * KILLS + 11)  # more than are done until the last kill
MOST = f"--nproc={len(RUNS)}"

# Stands in front of the submission command, and kills the manager that calls it when it is told.
DEADLY = """\
#!/usr/bin/env bash
mv "$EXPERIMENT/kill" "$EXPERIMENT/kill.$$" 2> /dev/null || exec {path} "$@"
read -r moment seconds < "$EXPERIMENT/kill.$$"
case $moment in
before)
    kill -9 $PPID
    exit 1
    ;;
during)
    {path} "$@" <&0 > /dev/null &
    sleep "$seconds"
    kill -9 $PPID
    wait
    ;;
unheard)
    {path} "$@" > /dev/null
    kill -9 $PPID
    ;;
after)
    {path} "$@"
    code=$?
    {{ sleep "$seconds"; kill -9 $PPID; }} < /dev/null > /dev/null 2>&1 &
    exit $code
    ;;
esac
"""
MOMENTS = ("before", "during", "unheard", "after", "some time")


@pytest.fixture
def lab(server: Server) -> Iterator[OnCluster]:
    made = OnCluster(server.new_directory(), server, RUNS, arrays=True)
    made.add_command(server.submission, DEADLY.format(path=server.path_of(server.submission)))
    server.give_to_user(made.directory)
    try:
        yield made
    finally:
        made.close()
        server.end_all_jobs()


def test_no_run_is_lost_and_none_is_executed_twice(lab: OnCluster) -> None:
    lab.open_archive(rate=1_000_000)  # so that runs become ready one after the other
    dice = thrown()
    for number in range(KILLS):
        kill_a_manager(lab, dice, number)
    lab.finish(MOST)
    assert lab.completions() == dict.fromkeys(RUNS, 1)
    assert all(lab.outcomes(run).count("failed") == 0 for run in RUNS)


def test_nor_when_the_batch_systems_daemons_are_killed_as_well(
    server: Server, lab: OnCluster
) -> None:
    """They may forget a job that they took a moment before: then its attempt has failed."""
    lab.open_archive(rate=1_000_000)
    dice = thrown()
    for number in range((KILLS + 1) // 2):
        with down_for(server, dice.uniform(0.0, 2.0), dice.uniform(0.0, 5.0)):
            kill_a_manager(lab, dice, number)
    lab.finish(MOST)
    lab.check_all_finished()
    begun = lab.ledger("begin")
    assert len(begun) == len(set(begun)), "an attempt ran twice"


def thrown() -> random.Random:
    """Dice whose seed is told."""
    sys.stdout.write(f"KILL_SEED={SEED}\n")
    return random.Random(SEED)


def kill_a_manager(lab: OnCluster, dice: random.Random, number: int) -> None:
    """At a moment that chance chooses."""
    moment = dice.choice(MOMENTS)
    seconds = dice.uniform(0, 2.5 if moment == "some time" else 0.1)
    sys.stdout.write(f"{number}: {moment} {seconds:.3f}\n")
    options = ["--no-arrays"] if dice.random() < 0.3 else []
    manager = lab.start(MOST, "--nprep=0", *options)
    if moment == "some time":
        time.sleep(0.5 + seconds)
        manager.send(signal.SIGKILL)
    else:
        (lab.directory / "kill").write_text(f"{moment} {seconds:.3f}\n")
    assert manager.wait() == -signal.SIGKILL, manager.said


@contextmanager
def down_for(server: Server, begin: float, seconds: float) -> Iterator[None]:
    """The server is killed after ``begin`` seconds, for so many ``seconds``, while this lasts."""

    def strike() -> None:
        time.sleep(begin)
        server.kill_brain()
        time.sleep(seconds)
        server.start_brain()

    with ThreadPoolExecutor(1) as executor:
        struck = executor.submit(strike)
        yield
        struck.result()
