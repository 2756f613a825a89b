"""Grid Engine's accounting is asked job by job, and any of the answers may never come."""

from __future__ import annotations

from pathlib import Path

import pytest

from production.batch import sge

# Hangs for job 7, fails for 6, does not know 5; of any other it says the same as the real one does.
QACCT = """\
#!/bin/sh
[ "$2" = 7 ] && exec sleep 60
[ "$2" = 6 ] && { echo 'error: cannot read the file' >&2; exit 1; }
[ "$2" = 5 ] && { echo 'error: job id 5 not found' >&2; exit 1; }
printf 'jobnumber    %s\\ntaskid       undefined\\nfailed       0\\nexit_status  3\\n' "$2"
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sge.GridEngineSystem:
    command = tmp_path / "qacct"
    command.write_text(QACCT)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PRODUCTION_TIMEOUT", "0.3")
    opened = sge.open_system({})
    assert isinstance(opened, sge.GridEngineSystem)
    return opened


def test_an_answer_that_does_not_come_takes_nothing_from_the_others(
    system: sge.GridEngineSystem,
) -> None:
    assert system.reasons(["10", "7", "8"]) == {
        "10": "ended with exit code 3",
        "7": None,
        "8": "ended with exit code 3",
    }


def test_to_know_nothing_of_a_job_is_an_answer(system: sge.GridEngineSystem) -> None:
    assert system.reasons(["5", "6", "8"]) == {"6": None, "8": "ended with exit code 3"}


def test_those_come_first_whose_turn_did_not_come(
    system: sge.GridEngineSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sge, "_ACCOUNTING_PATIENCE", 0.2)
    assert system.reasons(["7", "8"]) == {"7": None, "8": None}
    assert system.reasons(["7", "8"]) == {"7": None, "8": "ended with exit code 3"}
