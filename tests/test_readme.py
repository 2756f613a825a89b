"""Every command of the README is executed, in its order, and prints what the README shows.

Numbers and times differ from day to day and are not compared; a line `...` stands for any lines.
Commands with `make` are this test's own surroundings: only their targets are looked up.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()


def blocks() -> list[list[tuple[str, list[str]]]]:
    """The console blocks: for each its commands with the output that is shown."""
    found = []
    for match in re.finditer(r"^( *)```console\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL):
        commands: list[tuple[str, list[str]]] = []
        for line in match[2].splitlines():
            text = line.removeprefix(match[1])
            if text.startswith("$ "):
                commands.append((text[2:], []))
            else:
                commands[-1][1].append(text)
        found.append(commands)
    return found


def blurred(text: str) -> str:
    """Without what differs each time: numbers, paths, the account, column widths."""
    text = re.sub(r"(/\S*)?(/demo/)", r"\2", text)
    text = re.sub(r"\|[a-z_][a-z0-9_-]*\|", "|user|", text)
    text = re.sub(r"-{3,}", "---", re.sub(r"\d+", "0", text))
    return " ".join(text.split())


def missing_lines(shown: list[str], printed: str) -> list[str]:
    """The lines of the README that were not printed in that order; "..." ends one early."""
    lines = iter([blurred(line) for line in printed.splitlines()])
    wanted = [blurred(line) for line in shown if line.strip() not in {"", "..."}]
    return [line for line in wanted if not any(is_shown_by(line, said) for said in lines)]


def is_shown_by(line: str, said: str) -> bool:
    return said.startswith(line[:-4]) if line.endswith(" ...") else said == line


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_of_the_readme_does_what_is_shown(tmp_path: Path) -> None:
    for name in ("run_production.py", "examples"):
        (tmp_path / name).symlink_to(PROJECT / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "production").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m production "$@"\n')
    (programs / "production").chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    (programs / "activate").write_text(f'PATH="{programs}:{Path(sys.executable).parent}:$PATH"\n')
    (tmp_path / "home").mkdir()
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(PROJECT),
        "DEMO_DIR": str(tmp_path / "demo"),
        "DEMO_RUNS": "2091-2096",  # all of them: test_main_job.py
    }
    demo = [str(PROJECT / "examples" / "demo.sh"), sys.executable]
    done = subprocess.run(demo, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    session = subprocess.Popen(
        ["bash"],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert session.stdin is not None
    assert session.stdout is not None
    for block in blocks():
        for command, shown in block:
            session.stdin.write(f"{command}\ncode=$?; echo; echo end-of-command $code\n")
            session.stdin.flush()
            printed = ""
            for line in session.stdout:
                if line.startswith("end-of-command"):
                    break
                printed += line
            code = int(line.split()[1])
            fails = any(text.startswith("ERROR") for text in shown)
            assert (code != 0) == fails, f"$ {command}\n{printed}exit code {code}"
            assert missing_lines(shown, printed) == [], f"$ {command}\n{printed}"
    session.stdin.close()
    assert session.wait() == 0


def test_the_makefile_has_the_targets_that_the_readme_names() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    named = set(re.findall(r"^    make (\S+)|`make (\S+)`", README, re.MULTILINE))
    targets = {first or second for first, second in named}
    assert targets >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_shown_configuration_is_one(tmp_path: Path) -> None:
    from production.config import parse_configuration

    (shown,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    parsed = parse_configuration(re.sub(r"^   ", "", shown, flags=re.MULTILINE), tmp_path / "c")
    assert parsed.archive_urls() == ("ftp://archivftp.psi.ch/mu2e/run2013",)
    assert set(parsed.modules) == {"alcapana", "rootana"}
