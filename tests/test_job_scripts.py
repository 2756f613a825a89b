"""The two job scripts of the experiment: their checks have names, and they hide no failure."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from job_orders import Workshop

from production.batch import WRAPPER
from production.job.verdict import judge

ALCAPANA = WRAPPER.parent / "batch_alcapana.sge"
ROOTANA = WRAPPER.parent / "batch_rootana.sge"
SAY_ARGUMENTS = '#!/bin/sh\nprintf "<%s>" "$0" "$@"\n'


class Site:
    """A directory with the software, the input and a place for the outputs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daq = directory / "DAQ dir"
        for name in ("alcapana", "rootana"):
            self.program(self.daq / "bin" / name, SAY_ARGUMENTS)
        for name in ("raw.mid", "tree.root", "modules", "corrections", "wiremap"):
            self.path(name).touch()
        self.path("odb").mkdir()
        (self.path("odb") / "run02091.odb").touch()

    def path(self, name: str) -> Path:
        return self.directory / name

    def program(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(
        self, script: Path, arguments: list[str], variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "DAQdir": str(self.daq), **variables}
        return subprocess.run(
            ["bash", str(script), *arguments],
            env={name: value for name, value in environment.items() if value != "unset"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def alcapana(
        self, *, run: str = "2091", replaced: Mapping[int, str] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the script; ``replaced``: arguments that differ, by their place from 0."""
        names = ("raw.mid", "hist.root", "new.root", "dump.odb", "modules")
        arguments = [run, *(str(self.path(name)) for name in names)]
        for place, text in (replaced or {}).items():
            arguments[place] = text
        return self.run(ALCAPANA, arguments, variables)

    def rootana(
        self, *further: str, replaced: Mapping[int, str] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        arguments = [str(self.path(name)) for name in ("tree.root", "out.root", "modules")]
        for place, text in (replaced or {}).items():
            arguments[place] = text
        return self.run(ROOTANA, [*arguments, *further], variables)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def called(program: Path, *arguments: object) -> str:
    return "".join(f"<{argument}>" for argument in (program, *arguments))


# --------------------------------------------------------------------------- alcapana


def test_alcapana_is_called_as_it_always_was(site: Site) -> None:
    result = site.alcapana()
    expected = called(
        site.daq / "bin" / "alcapana",
        *("-i", site.path("raw.mid"), "-o", site.path("hist.root"), "-T", site.path("new.root")),
        *("-D", site.path("dump.odb"), "-m", site.path("modules")),
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")


def test_another_alcapana(site: Site) -> None:
    program = site.program(site.path("work dir") / "alcapana", SAY_ARGUMENTS)
    assert site.alcapana(ALCAPANA=str(program)).stdout.startswith(f"<{program}><-i>")


def test_all_that_alcapana_may_need_is_there(site: Site) -> None:
    result = site.alcapana(
        run="02091",
        ODB_DIR=str(site.path("odb")),
        CORRECTIONS=str(site.path("corrections")),
        WIREMAP=str(site.path("wiremap")),
        FINAL_HIST=str(site.path("final hist")),
        FINAL_TREE=str(site.path("final tree")),
    )
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("code", "reason", "change"),
    [
        (1, "RUN must be a number, not 'x'", {"run": "x"}),
        (1, "RUN must be a number, not ''", {"run": ""}),
        (1, "modules file missing", {"replaced": {5: "/nowhere"}}),
        (2, "DAQdir is not set", {"DAQdir": "unset"}),
        (2, "DAQdir is not a directory: /nowhere", {"DAQdir": "/nowhere"}),
        (3, "raw file missing", {"replaced": {1: "/nowhere"}}),
        (3, "raw file missing", {"replaced": {1: "/"}}),
        (4, "histogram file exists already", {"replaced": {2: "{}/modules"}}),
        (4, "histogram file exists already", {"FINAL_HIST": "{}/modules"}),
        (5, "tree file exists already", {"replaced": {3: "{}/modules"}}),
        (5, "tree file exists already", {"FINAL_TREE": "{}/modules"}),
        (6, "alcapana is missing or not executable", {"ALCAPANA": "/nowhere"}),
        (6, "alcapana is missing or not executable", {"ALCAPANA": "/"}),
        (6, "alcapana is missing or not executable", {"ALCAPANA": "{}/modules"}),
        (7, "ODB missing: {}/odb/run02092.odb", {"run": "2092", "ODB_DIR": "{}/odb"}),
        (8, "corrections or wire map missing", {"CORRECTIONS": "/nowhere"}),
        (8, "corrections or wire map missing", {"WIREMAP": "/nowhere"}),
    ],
)
def test_alcapana_is_refused(
    site: Site, code: int, reason: str, change: dict[str, str | dict[int, str]]
) -> None:
    result = site.alcapana(**filled(change, site))  # type: ignore[arg-type]
    assert result.returncode == code
    assert result.stderr.startswith(f"batch_alcapana.sge: {reason.format(site.directory)}")
    assert result.stdout == ""


def filled(change: dict[str, str | dict[int, str]], site: Site) -> dict[str, object]:
    """``change`` with the site's directory in place of {}."""
    return {
        key: value.format(site.directory)
        if isinstance(value, str)
        else {place: text.format(site.directory) for place, text in value.items()}
        for key, value in change.items()
    }


@pytest.mark.parametrize("script", [ALCAPANA, ROOTANA])
def test_a_wrong_number_of_arguments(site: Site, script: Path) -> None:
    result = site.run(script, ["2091"], {})
    assert result.returncode == 1
    assert f"usage: {script.name} " in result.stderr


@pytest.mark.parametrize(
    ("text", "code"), [("exit 42", 42), ("kill -SEGV $$", -signal.SIGSEGV), ("exit 0", 0)]
)
def test_the_exit_status_is_that_of_the_program(site: Site, text: str, code: int) -> None:
    program = str(site.program(site.path("p"), f"#!/bin/sh\n{text}\n"))
    assert site.alcapana(ALCAPANA=program).returncode == code
    assert site.rootana(ROOTANA=program).returncode == code


# --------------------------------------------------------------------------- rootana


def test_rootana_is_called_as_it_always_was(site: Site) -> None:
    result = site.rootana("-c", "-d", "a b.db")
    expected = called(
        site.daq / "bin" / "rootana",
        *("-i", site.path("tree.root"), "-o", site.path("out.root"), "-m", site.path("modules")),
        *("-c", "-d", "a b.db"),
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")


@pytest.mark.parametrize(
    ("code", "reason", "change"),
    [
        (2, "DAQdir is not set", {"DAQdir": "unset"}),
        (3, "tree file missing", {"replaced": {0: "/nowhere"}}),
        (4, "output file exists already", {"replaced": {1: "{}/modules"}}),
        (4, "output file exists already", {"FINAL_OUT": "{}/modules"}),
        (5, "modules file missing", {"replaced": {2: "/nowhere"}}),
        (6, "rootana is missing or not executable", {"ROOTANA": "{}/modules"}),
    ],
)
def test_rootana_is_refused(
    site: Site, code: int, reason: str, change: dict[str, str | dict[int, str]]
) -> None:
    result = site.rootana(**filled(change, site))  # type: ignore[arg-type]
    assert result.returncode == code
    assert result.stderr.startswith(f"batch_rootana.sge: {reason}")
    assert result.stdout == ""


# --------------------------------------------------------------------------- in a job


def test_a_refusal_becomes_the_reason_of_the_attempt(site: Site) -> None:
    workshop = Workshop(site.directory)
    order = workshop.order(
        ALCAPANA.read_text(),
        arguments=("2091", "/nowhere", "hist", "tree", "odb", str(site.path("modules"))),
        variables={"DAQdir": str(site.daq)},
    )
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (3, "preflight")
    verdict = judge(record, {3: "the raw file is missing"}, order.stderr)
    assert verdict.reason == "exit code 3: raw file missing or unreadable: /nowhere"
