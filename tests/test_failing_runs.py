"""Runs that fail: each stands at E after its attempts, with its reason; the others finish."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import midas
import numpy as np
import pytest
from experiment import PROJECT, RAW_SIZE, Experiment, experiment

pytestmark = pytest.mark.slow

EXAMPLES = PROJECT / "examples"
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
        environment__variables=f'ALCAPANA_CRASH_RUNS = "{crashing}"',
        modules=f'alcapana = "{EXAMPLES}/MODULES"',
    )


def test_what_can_go_wrong_with_alcapana(tmp_path: Path) -> None:
    runs = (GOOD, CRASHES, TRUNCATED, MISSING, EXISTS)
    with experiment(tmp_path, runs) as lab:
        use_alcapana(lab, crashing=str(CRASHES))
        for run in runs:
            write_raw_file(lab.raw(run), run)
        whole = lab.raw(TRUNCATED).read_bytes()
        lab.raw(TRUNCATED).write_bytes(whole[: len(whole) // 2])
        lab.raw(MISSING).rename(lab.directory / "lost")
        mine = lab.data / f"tree/v1/tree{EXISTS:05d}.root"
        mine.parent.mkdir(parents=True)
        mine.write_text("of somebody else")
        lab.open_archive()

        manager = lab.start()
        assert manager.wait() == 40
        error = closing_error(manager.said)
        assert error.startswith("ERROR: 4 of this production's runs stand at E: 2092, 2093, 2094,")
        assert f"production retry --production=alcapana --version=1 --database={lab.database}" in error
        assert lab.statuses() == "FEEEE"
        reasons = lab.reasons()
        assert reasons.pop(GOOD) is None
        said = f"cut off at byte {len(whole) // 2} in event"
        for run, expected in {
            CRASHES: r"killed by SIGSEGV: the program crashed",
            TRUNCATED: rf"exit code 4; last line of its log: alcapana: run02093.mid: {said} \d+",
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
        assert said == (
            "alcapana_v1: 4 runs will be tried again: "
            f"[{CRASHES}, {TRUNCATED}, {MISSING}, {EXISTS}]\n"
        )
        assert lab.start().wait() == 0
        assert lab.statuses() == "FFFFF"
        assert set(lab.reasons().values()) == {None}
        for run in runs[1:]:
            assert lab.outcomes(run) == ["failed"] * 3 + ["finished"]
        lab.check_nothing_under_way()


# --------------------------------------------------------------------------- what payloads do


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("exit 7", "exit code 7: the detector was off"),
        ("echo bad magnet >&2; exit 3", "exit code 3; last line of its log: bad magnet"),
        ('echo "no beam" > "$PM_SPOOL/reason"; exit 3', "exit code 3: no beam"),
        ("exit 0", "did not write {bytes}"),
        (': > "$2"; exit 0', "did not write {bytes}: it is empty"),
        ("kill -KILL $$", "killed by SIGKILL: killed from outside, often for want of memory"),
        ("rm $1", "exit code 1; last line of its log: {script}: line 5: {raw}: No such file or dir"),
    ],
)
def test_a_payload_that_fails_says_why(lab: Experiment, lines: str, reason: str) -> None:
    lab.trouble(2092, lines)
    manager = lab.start()
    assert manager.wait() == 40
    assert lab.statuses() == "FEF"
    expected = reason.format(
        bytes=f"{lab.data}/bytes/v1/.bytes02092.a3.txt",
        script=f"{lab.directory}/count.sh",
        raw="",
    )
    assert str(lab.reasons()[2092]).startswith(expected)
