"""Runs that fail: each stands at E after its attempts, with its reason; the others finish."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import midas
import numpy as np
import pytest
from experiment import PROJECT, Experiment, experiment

pytestmark = pytest.mark.slow

EXAMPLES = PROJECT / "examples"
CUT = 3000  # bytes that are left of a raw file, in the middle of an event
GOOD, CRASHES, TRUNCATED, MISSING, EXISTS = 2091, 2092, 2093, 2094, 2095


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as made:
        made.open_archive()
        yield made


def closing_error(said: str) -> str:
    """The error that a manager ends with, which must be one line and the last one."""
    lines = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    assert lines == said.splitlines()[-1:]
    return lines[0]


def logs(lab: Experiment, run: int) -> list[tuple[Path, Path]]:
    """Standard output and error of each attempt at a run."""
    rows = lab.rows(f"SELECT olog, elog FROM attempt WHERE run = {run} ORDER BY attempt")
    return [(Path(str(out)), Path(str(err))) for out, err in rows]


# --------------------------------------------------------------------------- real detector software


def write_raw_file(path: Path, run: int) -> None:
    """A genuine MIDAS run file."""
    time = 1386720000
    bank = midas.Bank.of("MUPX", np.array([1.5, 2.5]))
    events = [midas.Event(1, 0, serial, time, banks=(bank,)) for serial in range(100)]
    odb = midas.odb_text({"/Runinfo": {"Run number": run}})
    with path.open("wb") as file:
        midas.write_run(
            file, midas.begin_of_run(run, time, odb), events, midas.end_of_run(run, time, odb)
        )


def use_alcapana(lab: Experiment, crashing: str) -> None:
    """Let the example's alcapana, of which some runs crash, work on real raw files."""
    lab.type = "alcapana"
    lab.configure(
        environment=f'script = "{EXAMPLES}/thisdaq.sh"',
        environment__variables=f'''
            PRODUCTION_EXAMPLE_PYTHON = "{sys.executable}"
            ALCAPANA_CRASH_RUNS = "{crashing}"
        ''',
        modules=f'alcapana = "{EXAMPLES}/MODULES"',
    )


def test_what_can_go_wrong_with_alcapana(tmp_path: Path) -> None:
    runs = (GOOD, CRASHES, TRUNCATED, MISSING, EXISTS)
    with experiment(tmp_path, runs) as lab:
        use_alcapana(lab, crashing=str(CRASHES))
        for run in runs:
            write_raw_file(lab.raw(run), run)
        whole = lab.raw(TRUNCATED).read_bytes()
        lab.raw(TRUNCATED).write_bytes(whole[:CUT])
        lab.raw(MISSING).rename(lab.directory / "lost")
        mine = lab.data / f"tree/v1/tree{EXISTS:05d}.root"
        mine.parent.mkdir(parents=True)
        mine.write_text("of somebody else")
        lab.open_archive()

        manager = lab.start()
        assert manager.wait() == 40
        error = closing_error(manager.said)
        assert error.startswith("ERROR: Runs of this production stand at E (4): 2092, 2093, 2094,")
        assert f"--production=alcapana --version=1 --database={lab.database}" in error
        assert lab.statuses() == "FEEEE"
        reasons = lab.reasons()
        assert reasons.pop(GOOD) is None
        for run, expected in {
            CRASHES: r"killed by SIGSEGV: the program crashed",
            TRUNCATED: rf"exit code 4; .*: alcapana: run02093.mid: cut off at byte {CUT} .*",
            MISSING: r"run02094\.mid is not on the archive 127\.0\.0\.1 \(550 .*\)",
            EXISTS: re.escape(f"output exists already: {mine}"),
        }.items():
            assert re.fullmatch(expected, str(reasons[run])), reasons[run]
            assert lab.outcomes(run) == ["failed"] * 3
            assert manager.said.count(f"Failed run: {run}: {reasons[run]}") == 3
        for run in (CRASHES, TRUNCATED, EXISTS):
            for number, (out, err) in enumerate(logs(lab, run), start=1):
                assert f"alcapana_v1.{run}.a{number}." in out.read_text()
                assert err.exists()
                assert (out.name, err.name) == (
                    f"alcapana.run{run:05d}.attempt{number}.out",
                    f"alcapana.run{run:05d}.attempt{number}.err",
                )
        assert mine.read_text() == "of somebody else"
        mine.rename(tmp_path / "elsewhere")
        lab.check_nothing_under_way()
        assert lab.rows("SELECT stop FROM productions") == [(None,)]

        use_alcapana(lab, crashing="")
        lab.raw(TRUNCATED).write_bytes(whole)
        (lab.directory / "lost").rename(lab.raw(MISSING))
        said = lab.production("retry", "--production=alcapana")
        assert said == (f"alcapana_v1: 4 runs will be tried again: {CRASHES}-{EXISTS}\n")
        assert lab.start().wait() == 0
        assert lab.statuses() == "FFFFF"
        assert set(lab.reasons().values()) == {None}
        for run in runs[1:]:
            assert lab.outcomes(run) == ["failed"] * 3 + ["finished"]
        lab.check_nothing_under_way()


# --------------------------------------------------------------------------- what payloads do


# What the payload of a run does, and the reason that it is to have.
TROUBLES = {
    1: ("exit 7", "exit code 7: the detector was off"),
    2: ("echo bad magnet >&2; exit 3", "exit code 3; last line of its log: bad magnet"),
    3: ('echo "no beam" > "$PM_SPOOL/reason"; exit 3', "exit code 3: no beam"),
    4: ("exit 0", r"did not write output bytes: there is no \S+/bytes/v1/\S+\.txt"),
    5: (': > "$2"; exit 0', r"did not write output bytes: \S+/bytes/v1/\S+\.txt is empty"),
    6: ("kill -KILL $$", "killed by SIGKILL: killed from outside, often for want of memory"),
}


def test_a_payload_that_fails_says_why(tmp_path: Path) -> None:
    with experiment(tmp_path, runs=range(1, 9)) as lab:
        lab.open_archive()
        for run, (lines, _) in TROUBLES.items():
            lab.trouble(run, lines)
        manager = lab.start()
        assert manager.wait() == 40
        assert lab.statuses() == "EEEEEEFF"
        reasons = lab.reasons()
        for run, (_, expected) in TROUBLES.items():
            assert re.fullmatch(expected, str(reasons[run]))
        assert "Runs of this production stand at E (6): 1, 2, 3, 4, 5, 6." in closing_error(
            manager.said
        )
        lab.check_nothing_under_way()


def test_a_failed_run_rests_before_it_is_tried_again(lab: Experiment) -> None:
    lab.configure(defaults='pause = 0.2\nspacelim = "100%"\nback_off = 0.8\nmax_attempts = 3')
    lab.trouble(2092, "exit 7")
    assert lab.start().wait() == 40
    times = [
        [datetime.fromisoformat(str(time)) for time in row]
        for row in lab.rows("SELECT claimed, stop FROM attempt WHERE run = 2092 ORDER BY attempt")
    ]
    assert len(times) == 3
    assert times[1][0] - times[0][1] >= timedelta(seconds=0.8)
    assert times[2][0] - times[1][1] >= timedelta(seconds=1.6)


def test_a_run_that_only_once_failed_finishes(lab: Experiment) -> None:
    once = lab.directory / "once"
    lab.trouble(2092, f"[[ -e {once} ]] || {{ touch {once}; exit 7; }}")
    manager = lab.start()
    assert manager.wait() == 0
    lab.check_all_finished()
    assert lab.outcomes(2092) == ["failed", "finished"]
    assert lab.reasons()[2092] is None
    (failed, finished) = logs(lab, 2092)
    assert failed[0].name == "count.run02092.attempt1.out"
    assert finished[0].name == "count.run02092.out"
    assert failed[0].exists()


def test_the_number_of_attempts_can_be_chosen(lab: Experiment) -> None:
    lab.trouble(2092, "exit 7")
    assert lab.start("--max-attempts=1").wait() == 40
    assert lab.statuses() == "FEF"
    assert lab.outcomes(2092) == ["failed"]
    assert lab.start("--max-attempts=1").wait() == 40  # a run at E stays there
    assert lab.outcomes(2092) == ["failed"]

    lab.trouble(2092, "")
    assert "1 run will be tried again: 2092" in lab.production("retry", "--production=count")
    lab.finish()
    assert lab.outcomes(2092) == ["failed", "finished"]
