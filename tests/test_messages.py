"""What a manager says, and what it would do: messages, dry runs, versions, choice of runs.

The production is a small one: bash programs in place of alcapana and rootana.
"""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from laboratory import PASSWORD, PROJECT, Laboratory, Said, laboratory, spoil

pytestmark = pytest.mark.slow

ALCAPANA = "--production=alcapana"
ROOTANA = "--production=rootana"
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")

# Takes a copy of its orders, and of how it was started, before it does its work.
WITNESS = """\
mkdir -p "$HOME/seen"
cp "$PM_SPOOL/orders" "$HOME/seen/orders$RUN"
files=$(readlink /proc/$PPID/cwd /proc/$$/fd/1 /proc/$$/fd/2)
{ tr '\\0' '\\n' < /proc/$PPID/cmdline; echo "$files"; } > "$HOME/seen/process$RUN"
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Laboratory]:
    with laboratory(tmp_path) as made:
        yield made


def outputs(lab: Laboratory, view: str, column: str) -> dict[object, str]:
    """What is in the recorded output files of a production, by run."""
    rows = lab.rows(f"SELECT run, {column} FROM {view} WHERE status = 'F'")
    return {run: Path(str(path)).read_text() for run, path in rows}


# ------------------------------------------------------------------------------- the messages


def test_a_production_in_the_words_that_users_know(lab: Laboratory) -> None:
    said = lab.finish(ALCAPANA, "--new=alcapana_v1")
    assert said.err == ""
    assert all(STAMP.match(line) for line in said.out.splitlines())
    assert said.lines[:6] == [
        "INFO: Starting new production, version 1",
        "INFO: 3 runs, software tag alcapana_v1",
        "Claimed run: 2091",
        "Claimed run: 2092",
        "Claimed run: 2093",
        "Staging runs: [2091, 2092, 2093]",
    ]
    assert said.lines[-1] == "Nothing left to do here. alcapana_v1: 3 F"
    course = said.lines[6:-1]
    for run in (2091, 2092, 2093):
        assert [line for line in course if str(run) in line] == [
            f"Downloading run: {run}",
            f"... Success! (run {run})",
            f"Submitting run: {run}",
            f"Finished run: {run}",
        ]
    assert len(course) == 3 * 4


def test_times_are_those_of_the_clock_on_the_wall(lab: Laboratory) -> None:
    before = time.time()
    said = lab.finish(ALCAPANA, "--new=alcapana_v1")
    after = time.time()
    for line in said.out.splitlines():
        stamp = time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S"))
        assert int(before) <= stamp <= after


def test_the_example_of_2014(lab: Laboratory) -> None:
    """``--new=rootana_v2.1 --version=3`` starts version 8, from the outputs of alcapana 3."""
    trees = lab.home / "old trees"
    trees.mkdir()
    old = lab.home / "old.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE datasets (run, dataset, quality)")
        connection.execute("CREATE TABLE productions (type, version, software, start, stop)")
        connection.execute("CREATE TABLE alcapana_v3 (run, status, user, start, stop, tree)")
        connection.executemany(
            "INSERT INTO productions VALUES (?, ?, ?, '2014-06-16', '2014-06-20')",
            [("alcapana", 3, "alcapana_v3"), ("rootana", 7, "rootana_v2.0")],
        )
        for run in (2091, 2092, 2093):
            tree = trees / f"tree{run:05d}.root"
            tree.write_text(f"old tree of {run}\n")
            connection.execute(
                "INSERT INTO alcapana_v3 VALUES (?, 'F', 'quirk_j', '2014', '2014', ?)",
                (run, str(tree)),
            )
        connection.commit()
    assert lab.production("import", old).code == 0
    said = lab.finish(ROOTANA, "--new=rootana_v2.1", "--version=3")
    assert said.lines[0] == "INFO: Starting new production, version 8"
    assert [line for line in said.lines if "Claimed" in line] == [
        f"Claimed run: {run}" for run in (2091, 2092, 2093)
    ]
    assert outputs(lab, "rootana_v8", "out")[2092] == "old tree of 2092\n[ MODULES ]\nPlotMass\n"


def test_trouble_is_labelled_and_explained(lab: Laboratory) -> None:
    spoil(lab, "alcapana", "[[ $RUN != 2092 ]] || { echo 'bank ADC0 is damaged' >&2; exit 4; }")
    said = lab.run(ALCAPANA, "--new=alcapana_v1", "--max-attempts=1")
    assert said.code == 40
    failed = "WARNING: Failed run: 2092: exit code 4; last line of its log: bank ADC0 is damaged"
    assert f"{failed} (no attempts left)" in said.lines
    assert said.lines[-1] == "Nothing left to do here. alcapana_v1: 2 F, 1 E"
    assert said.err == (
        "ERROR: Runs of this production stand at E (1): 2092. See the reasons with: sqlite3 "
        f"{lab.database} \"SELECT run, reason FROM alcapana_v1 WHERE status='E'\"; try them again "
        f"with: production retry --production=alcapana --version=1 --database={lab.database}\n"
    )


def test_what_is_said_about_failed_runs_can_be_typed(lab: Laboratory) -> None:
    spoil(lab, "alcapana", "[[ $RUN != 2092 || -e $HOME/repaired ]] || exit 4")
    said = lab.run(ALCAPANA, "--new=alcapana_v1", "--max-attempts=1")
    query, retry = re.findall(r"with: (.*?)(?:; try|\n)", said.err)
    assert lab.command(*shlex.split(query)).out == "2092|exit code 4\n"
    (lab.home / "repaired").touch()
    assert lab.command(*shlex.split(retry)).out == (
        "alcapana_v1: 1 run will be tried again: 2092\n"
    )
    assert lab.finish(ALCAPANA).lines[-1] == "Nothing left to do here. alcapana_v1: 3 F"


def test_a_failed_run_waits_before_it_is_tried_again(lab: Laboratory) -> None:
    lab.configure(defaults="back_off = 0.2")
    spoil(lab, "alcapana", "exit 4")
    said = lab.run(ALCAPANA, "--new=alcapana_v1", "--dataset=SiR2")
    assert said.code == 40
    ends = [line for line in said.lines if "Failed run: 2092" in line]
    assert [re.sub(r".*\((.*)\)", r"\1", line) for line in ends] == [
        *("next try in 0 s", "next try in 0 s", "no attempts left")
    ]
    assert lab.rows("SELECT DISTINCT status, attempt FROM alcapana_v1") == [("E", 3)]


def test_runs_that_wait_for_their_base_are_mentioned(lab: Laboratory) -> None:
    spoil(lab, "alcapana", "[[ $RUN != 2092 ]] || exit 4")
    lab.run(ALCAPANA, "--new=alcapana_v1", "--max-attempts=1")
    said = lab.finish(ROOTANA, "--new=rootana_v1")
    assert said.lines[-2:] == [
        "Nothing left to do here. rootana_v1: 1 N, 2 F",
        "1 run still to be finished by the base production",
    ]


# ------------------------------------------------------------------------------- their forms


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_as_json_every_line_is_an_object(lab: Laboratory) -> None:
    before = time.time()
    said = lab.finish(ALCAPANA, "--new=alcapana_v1", "--output=json")
    found = objects(said.out)
    assert all(set(entry) == {"time", "level", "message"} for entry in found)
    assert found[0]["message"] == "INFO: Starting new production, version 1"
    assert "Finished run: 2093" in [entry["message"] for entry in found]
    times = [float(str(entry["time"])) for entry in found]
    assert before <= times[0] <= times[-1] <= time.time()
    assert times == sorted(times)
    assert [entry["level"] for entry in found] == ["info"] * (len(found) - 1) + ["report"]


def test_quiet_says_nothing_when_all_is_well(lab: Laboratory) -> None:
    said = lab.finish(ALCAPANA, "--new=alcapana_v1", "--output=quiet")
    assert (said.out, said.err) == ("", "")


def test_quiet_still_says_what_went_wrong(lab: Laboratory) -> None:
    spoil(lab, "alcapana", "[[ $RUN != 2092 ]] || exit 4")
    said = lab.run(ALCAPANA, "--new=alcapana_v1", "--output=quiet", "--max-attempts=1")
    assert (said.code, said.out) == (40, "")
    warning, error = said.err.splitlines()
    assert STAMP.sub("", warning) == ("WARNING: Failed run: 2092: exit code 4 (no attempts left)")
    assert error.startswith("ERROR: Runs of this production stand at E (1): 2092.")


def test_the_log_file_gets_all_messages_as_json_lines(lab: Laboratory) -> None:
    log = lab.home / "manager.log"
    alcapana = lab.finish(ALCAPANA, "--new=alcapana_v1", f"--log-file={log}")
    assert [entry["message"] for entry in objects(log.read_text())] == alcapana.lines
    rootana = lab.finish(ROOTANA, "--new=rootana_v1", f"--log-file={log}", "--output=quiet")
    assert rootana.out == ""
    messages = [entry["message"] for entry in objects(log.read_text())]
    assert messages[: len(alcapana.lines)] == alcapana.lines  # it is continued
    assert messages[-1] == "Nothing left to do here. rootana_v1: 3 F"


def test_a_reason_that_the_terminal_cannot_show_ends_nothing(lab: Laboratory) -> None:
    spoil(
        lab, "alcapana", '[[ $RUN != 2092 ]] || { echo "Überlauf" > "$PM_SPOOL/reason"; exit 4; }'
    )
    said = lab.run(
        *(ALCAPANA, "--new=alcapana_v1", "--max-attempts=1"),
        variables={"PYTHONIOENCODING": "ascii"},
    )
    assert said.code == 40
    assert "WARNING: Failed run: 2092: exit code 4: \\xdcberlauf (no attempts left)" in said.lines
    assert lab.rows("SELECT run, reason FROM alcapana_v1 WHERE status = 'E'") == [
        (2092, "exit code 4: Überlauf")
    ]


# ------------------------------------------------------------------------------- dry runs


def dry_run(lab: Laboratory, *arguments: str) -> Said:
    """A dry run, which changes nothing and speaks to nobody."""
    before, dump, connections = lab.snapshot(), lab.dump(), lab.archive.connections
    said = lab.run(*arguments, "--dry-run", f"--log-file={lab.home / 'no.log'}")
    assert (said.code, said.err) == (0, "")
    assert (lab.snapshot(), lab.dump(), lab.archive.connections) == (before, dump, connections)
    return said


@pytest.mark.parametrize(
    ("arguments", "run"),
    [
        ([ALCAPANA, "--new=alcapana_v2"], 2091),
        ([ROOTANA, "--new=rootana_v1"], 2091),
        ([ROOTANA, "--new=rootana_v1", "--calibdatabase=calibration.db", "--calib"], 2091),
        ([ALCAPANA, "--new=alcapana_v2", "--dataset=Ti50"], 2101),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_dry_run_shows_what_is_really_submitted(
    lab: Laboratory, arguments: list[str], run: int
) -> None:
    lab.add_runs("Ti50", "2101", "--quality=gold")
    lab.finish(ALCAPANA, "--new=alcapana_v1")
    (lab.home / "calibration.db").touch()
    for program in ("alcapana", "rootana"):
        spoil(lab, program, WITNESS)
    said = dry_run(lab, *arguments)
    lab.finish(*arguments)

    orders = (lab.home / "seen" / f"orders{run}").read_text()
    assert said.out.endswith(f"/orders\n{orders}\n")

    command = shlex.split(said.out.splitlines()[0])
    *argv, cwd, out, err = (lab.home / "seen" / f"process{run}").read_text().splitlines()
    assert command == ["cd", cwd, "&&", "setsid", *argv, "<", "/dev/null", ">>", out, "2>>", err]

    script = PROJECT / "sge_scripts" / f"batch_{arguments[0].partition('=')[2]}.sge"
    assert script.read_text() in said.out


def test_a_dry_run_of_a_production_that_goes_on(lab: Laboratory) -> None:
    """The next attempt at the first run that waits, not at one that is done."""
    spoil(lab, "alcapana", "[[ $RUN != 2092 || -e $HOME/repaired ]] || exit 4", WITNESS)
    lab.run(ALCAPANA, "--new=alcapana_v1", "--max-attempts=1")
    assert lab.production("retry", ALCAPANA).code == 0
    said = dry_run(lab, ALCAPANA)
    (lab.home / "repaired").touch()
    lab.finish(ALCAPANA)
    orders = (lab.home / "seen" / "orders2092").read_text()
    assert "run02092.a2" in orders
    assert said.out.endswith(f"/orders\n{orders}\n")


def test_a_dry_run_says_that_nothing_would_be_done(lab: Laboratory) -> None:
    lab.add_runs("Al50", "2101", "--quality=gold")
    lab.finish(ALCAPANA, "--new=alcapana_v1", "--dataset=SiR2")
    said = dry_run(lab, ALCAPANA, "--dataset=SiR2")
    assert said.out == "alcapana_v1: no run would be claimed\n"
    assert "run02101.a1" in dry_run(lab, ALCAPANA).out


def test_a_dry_run_from_a_base_that_has_nothing(lab: Laboratory) -> None:
    spoil(lab, "alcapana", "exit 4")
    lab.run(ALCAPANA, "--new=alcapana_v1", "--max-attempts=1")
    said = dry_run(lab, ROOTANA, "--new=rootana_v1")
    assert said.out == "rootana_v1: no run would be claimed\n"


# ------------------------------------------------------------------------------- versions


def test_each_type_counts_its_versions(lab: Laboratory) -> None:
    said = [
        lab.finish(*arguments).lines[0]
        for arguments in (
            (ALCAPANA, "--new=one"),
            (ALCAPANA, "--new=two"),
            (ROOTANA, "--new=three"),
            (ALCAPANA, "--new=four"),
            (ROOTANA, "--new=five", "--version=1"),
        )
    ]
    assert said == [f"INFO: Starting new production, version {n}" for n in (1, 2, 1, 3, 2)]
    assert lab.rows("SELECT type, version, software, base FROM productions ORDER BY 1, 2") == [
        ("alcapana", 1, "one", None),
        ("alcapana", 2, "two", None),
        ("alcapana", 3, "four", None),
        ("rootana", 1, "three", 2),  # the newest at that time
        ("rootana", 2, "five", 1),  # the one that was named
    ]


def test_without_new_the_newest_version_goes_on_or_the_one_that_is_named(lab: Laboratory) -> None:
    lab.add_runs("Al50", "2103", "--quality=silver", "--tranche=1")
    for tag in ("one", "two"):
        lab.finish(ALCAPANA, f"--new={tag}", "--tranche=1")  # none of gold has this tranche
    assert lab.finish(ALCAPANA).lines[0] == "INFO: Most recent production version 2"
    assert lab.rows("SELECT DISTINCT status FROM alcapana_v1") == [("N",)]
    assert lab.rows("SELECT DISTINCT status FROM alcapana_v2") == [("F",)]
    assert lab.finish(ALCAPANA, "--version=1").lines[0] == "INFO: Version 1"
    assert lab.rows("SELECT DISTINCT status FROM alcapana_v1") == [("F",)]


def test_rootana_reads_the_trees_of_its_base(lab: Laboratory) -> None:
    for tag in ("one", "two"):
        modules = lab.home / tag
        modules.write_text(f"modules {tag}\n")
        lab.finish(ALCAPANA, f"--new={tag}", f"--modules={modules}")
    lab.finish(ROOTANA, "--new=newest")
    lab.finish(ROOTANA, "--new=named", "--version=1")
    assert "modules two\n" in outputs(lab, "rootana_v1", "out")[2091]
    assert "modules one\n" in outputs(lab, "rootana_v2", "out")[2091]


def test_the_modules_file_is_recorded_and_used_as_it_is(lab: Laboratory) -> None:
    """Byte by byte: line ends, other letters whatever the locale, no end of the last line."""
    modules = lab.home / "my modules.cfg"
    modules.write_bytes("µ/MuonHits\r\n\tPlötMass = 1".encode())
    plain_ascii = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    lab.finish(ALCAPANA, "--new=one", f"--modules={modules}", variables=plain_ascii)
    recorded = lab.rows("SELECT DISTINCT modules FROM alcapana_v1")
    assert recorded == [(modules.read_bytes().decode(),)]
    (tree,) = lab.rows("SELECT tree FROM alcapana_v1 WHERE run = 2091")
    assert Path(str(tree[0])).read_bytes() == b"events of run 2091\n" + modules.read_bytes()
    assert lab.rows("SELECT count(*) FROM modules") == [(1,)]


def test_options_of_rootana_reach_it(lab: Laboratory) -> None:
    lab.finish(ALCAPANA, "--new=one")
    calibration = lab.data / "calibration.db"
    for arguments, expected in (
        ([], ""),
        (["--calib"], " -c"),
        (["--calibdatabase=data/MODULES"], f" -d {lab.data}/MODULES"),
        (["--calib", "--option=calibdatabase=x"], " -c -d x"),
    ):
        lab.finish(ROOTANA, "--new=two", *arguments)
        (version,) = lab.column("SELECT max(version) FROM productions WHERE type = 'rootana'")
        log = (lab.data / f"log/v{version}/rootana.run02091.out").read_text()
        assert re.search(rf"/modules{re.escape(expected)}$", log, re.MULTILINE), log
    calibration.touch()  # where it is looked for when it is not named
    lab.finish(ROOTANA, "--new=three", "--calib")
    log = (lab.data / "log/v5/rootana.run02091.out").read_text()
    assert f"/modules -c -d {calibration}\n" in log


# ------------------------------------------------------------------------------- choice of runs


@pytest.fixture
def labelled(lab: Laboratory) -> Laboratory:
    """Runs of several datasets, tranches and qualities."""
    lab.add_runs("Al50", "2101", "--quality=gold", "--tranche=1")
    lab.add_runs("Al50", "2102", "--quality=gold", "--tranche=2")
    lab.add_runs("Al50", "2103", "--quality=silver", "--tranche=2")
    lab.add_runs("Common", "2104")
    return lab


ALL = [2091, 2092, 2093, 2101, 2102, 2103, 2104]
GOLD = [2091, 2092, 2093, 2101, 2102]


@pytest.mark.parametrize(
    ("arguments", "taking_part", "done"),
    [
        ([], GOLD, GOLD),
        (["--dataset=Al50"], GOLD, [2101, 2102]),
        (["--dataset=Al50", "--dataset=SiR2"], GOLD, GOLD),
        (["--dataset=Common"], GOLD, []),
        (["--tranche=2"], GOLD, [2102]),
        (["--tranche=1", "--tranche=2"], GOLD, [2101, 2102]),
        (["--dataset=SiR2", "--tranche=2"], GOLD, []),
        (["--quality=silver"], [2103], [2103]),
        (["--quality=silver", "--quality=gold"], [*GOLD, 2103], [*GOLD, 2103]),
        (["--quality=any"], ALL, ALL),
        (["--quality=any", "--dataset=Common"], ALL, [2104]),
        (["--quality=any", "--tranche=2"], ALL, [2102, 2103]),
    ],
    ids=lambda value: " ".join(map(str, value)) or "all",
)
def test_runs_are_chosen_by_their_labels(
    labelled: Laboratory, arguments: list[str], taking_part: list[int], done: list[int]
) -> None:
    said = labelled.finish(ALCAPANA, "--new=one", *arguments)
    assert labelled.column("SELECT run FROM alcapana_v1 ORDER BY run") == sorted(taking_part)
    finished = labelled.column("SELECT run FROM alcapana_v1 WHERE status = 'F' ORDER BY run")
    assert finished == sorted(done)
    left = "The runs at N are outside of the chosen datasets, tranches and qualities"
    assert (left in said.lines) == (len(done) < len(taking_part))


def test_another_manager_does_the_other_datasets(labelled: Laboratory) -> None:
    labelled.finish(ALCAPANA, "--new=one", "--dataset=SiR2")
    assert labelled.rows("SELECT stop FROM productions") == [(None,)]
    said = labelled.finish(ALCAPANA, "--dataset=Al50")
    assert "Staging runs: [2101, 2102]" in said.lines
    assert labelled.rows("SELECT stop IS NOT NULL FROM productions") == [(1,)]


def test_the_configuration_chooses_where_the_command_line_does_not(labelled: Laboratory) -> None:
    labelled.configure(defaults='dataset = ["Al50"]\ntranche = [2]\nquality = ["silver", "gold"]')
    labelled.finish(ALCAPANA, "--new=one")
    finished = "SELECT run FROM alcapana_v1 WHERE status = 'F' ORDER BY run"
    assert labelled.column(finished) == [2102, 2103]
    labelled.finish(ALCAPANA, "--tranche=1")
    assert labelled.column(finished) == [2101, 2102, 2103]


# ------------------------------------------------------------------------------- secrets


def test_the_password_is_nowhere_but_in_the_netrc(lab: Laboratory) -> None:
    """Whatever happens: success, failure, a file that is missing on the archive."""
    spoil(lab, "alcapana", "env; ps -ef; [[ $RUN != 2092 ]] || exit 4")
    (lab.archive.root / "run02093.mid").unlink()
    said = lab.run(
        *(ALCAPANA, "--new=one", "--max-attempts=1", f"--log-file={lab.home / 'manager.log'}")
    )
    assert said.code == 40
    assert lab.rows("SELECT status FROM alcapana_v1 ORDER BY run") == [("F",), ("E",), ("E",)]
    assert PASSWORD in lab.netrc.read_text()
    holding = [
        path
        for path in lab.home.rglob("*")
        if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    assert holding == [lab.netrc]
    assert PASSWORD not in said.out + said.err + lab.dump()
