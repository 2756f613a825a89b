"""The limit on the space: nothing new above it, running work goes on, and all resumes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import RUNS, Experiment, ManagerProcess, experiment

pytestmark = pytest.mark.slow

# Prints the plain table, as releases without -Y do, from a file that holds the used MB of 1000.
MMLSQUOTA = """\
#!/usr/bin/env bash
if [[ ${1-} == -Y ]]; then echo "mmlsquota: Incorrect option: -Y" >&2; exit 1; fi
echo >> "$EXPERIMENT/questions"
read -r used < "$EXPERIMENT/used" || exit
[[ $used != silent ]] || { echo "mmlsquota: GPFS is down on this node." >&2; exit 50; }
cat << EOF
                         Block Limits                                    |     File Limits
Filesystem type             KB      quota      limit   in_doubt    grace |    files   quota    limit
merliny    USR  ${used}000 1000000 1200000 0 none | 1 0 0 0 none
EOF
"""
SHORT = "WARNING: Disk space is short: 95% of it is used (mmlsquota merliny USR), the limit is 90%."
AGAIN = "Disk space has become available."
SILENT = "WARNING: The space on merliny could not be found out: "


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as made:
        made.add_command("mmlsquota", MMLSQUOTA)
        made.configure(
            space='probe = "mmlsquota"\ndevice = "merliny"',
            defaults='pause = 0.1\nspacelim = "90%"',
            batch__local="slots = 1",
        )
        use(made, 100)
        yield made


def use(lab: Experiment, used: object) -> None:
    """Set the used space: MB of 1000, or ``silent`` for a probe that does not answer."""
    new = lab.directory / "used.new"
    new.write_text(f"{used}\n")
    new.replace(lab.directory / "used")


def start(lab: Experiment, *arguments: str) -> ManagerProcess:
    """A manager that asks for the space in each cycle, however long the answer takes."""
    patch = "from production.manager import room; room.ASKING_SHARE = 0"
    return lab.start(*arguments, patch=patch)


def until_asked(lab: Experiment, manager: ManagerProcess, times: int) -> None:
    """Wait until the manager has asked for the space so many times more."""
    questions = lab.directory / "questions"

    def asked() -> int:
        return len(questions.read_text()) if questions.exists() else 0

    before = asked()
    manager.until(lambda: asked() >= before + times, "the question")


def test_nothing_is_claimed_until_there_is_space(lab: Experiment) -> None:
    lab.open_archive()
    use(lab, 950)
    manager = start(lab)
    manager.until_it_says(SHORT)
    until_asked(lab, manager, 5)
    assert lab.statuses() == "NNN"
    assert lab.archive_log("staged") == []
    use(lab, 890)
    assert manager.wait() == 0
    lab.check_all_finished()
    assert manager.said.count(SHORT) == manager.said.count(AGAIN) == 1
    assert [lab.outcomes(run) for run in RUNS] == [["finished"]] * 3


def with_a_long_download(lab: Experiment, run: int) -> ManagerProcess:
    """The first run works, and that one is on its way from the archive for seconds."""
    lab.raw(run).write_bytes(bytes(3_000_000))
    lab.hold("payload")
    lab.open_archive(rate=1_000_000)
    manager = start(lab, "--nproc=1", "--nprep=2")
    manager.until_it_says(f"Downloading run: {run}")
    manager.until(lambda: lab.statuses() == "RCC", "submission")
    return manager


def test_claims_without_files_go_back_and_running_work_goes_on(lab: Experiment) -> None:
    manager = with_a_long_download(lab, run=2093)
    use(lab, 950)
    manager.until(lambda: lab.statuses() == "RCN", "giving back")  # 2092 is here already
    manager.until(lambda: lab.partly_downloaded() == 0, "tidying up")
    lab.let_go("payload")
    manager.until(lambda: lab.statuses() == "FFN", "the end of the jobs")
    until_asked(lab, manager, 5)
    assert lab.statuses() == "FFN"
    assert manager.said.count(SHORT) == 1
    lab.open_archive()
    use(lab, 100)
    assert manager.wait() == 0
    lab.check_all_finished()
    assert manager.said.count(SHORT) == manager.said.count(AGAIN) == 1
    assert [lab.outcomes(run) for run in RUNS] == [
        ["finished"],
        ["finished"],
        ["rolled back", "finished"],
    ]
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_a_probe_that_fails_pauses_downloads_and_nothing_else(lab: Experiment) -> None:
    manager = with_a_long_download(lab, run=2092)
    use(lab, "silent")
    manager.until_it_says(SILENT)
    lab.let_go("payload")
    manager.until(lambda: lab.statuses() == "FFC", "the end of the jobs")
    until_asked(lab, manager, 5)
    assert lab.statuses() == "FFC"
    assert lab.archive_log("sent") == ["run02091.mid", "run02092.mid"]
    assert "exit code 50: mmlsquota: GPFS is down on this node." in manager.said
    use(lab, 100)
    assert manager.wait() == 0
    lab.check_all_finished()
    assert manager.said.count(SILENT) == 1
    assert [lab.outcomes(run) for run in RUNS] == [["finished"]] * 3


def test_runs_that_wait_for_space_can_be_left_alone(lab: Experiment) -> None:
    lab.open_archive()
    use(lab, 950)
    manager = start(lab)
    manager.until_it_says(SHORT)
    manager.press_ctrl_c()
    assert manager.wait() == 130
    assert lab.statuses() == "NNN"
    lab.check_nothing_under_way()
