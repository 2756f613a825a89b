"""Grid Engine's accounting is asked job by job, and any of the answers may never come."""

from __future__ import annotations

from pathlib import Path

import pytest

from production.batch import sge

# Hangs for job 7; of any other it says the same as the real one does.
QACCT = """\
#!/bin/sh
[ "$2" = 7 ] && exec sleep 60
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
        "8": "ended with exit code 3",
    }


def test_those_come_first_whose_turn_did_not_come(
    system: sge.GridEngineSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sge, "_ACCOUNTING_PATIENCE", 0.2)
    assert system.reasons(["7", "8"]) == {}
    assert system.reasons(["7", "8"]) == {"8": "ended with exit code 3"}
