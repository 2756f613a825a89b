"""The manual pages tell what the parsers know, in a language that groff understands."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import need

from production.cli import COMMANDS, command_parser, main
from production.cli.examples import EXAMPLES
from production.errors import UsageError
from production.view.manual import exit_codes, literal

DOCS = Path(__file__).parent.parent / "docs"


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command, and what is below it, with its parser."""
    for name in COMMANDS:
        parser, _ = command_parser(name, f"production {name}")
        below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not below:
            yield name, parser
        for action in below:
            yield from ((f"{name} {key}", deeper) for key, deeper in action.choices.items())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all pages."""
    directory = tmp_path_factory.mktemp("man")
    assert main(["man", f"--directory={directory}"]) == 0
    return directory


# ------------------------------------------------------------------------------- examples


def test_there_is_an_example_of_each_command_and_no_other() -> None:
    assert set(EXAMPLES) == {name for name, _ in parsers()}


@pytest.mark.parametrize(
    ("name", "parser"), list(parsers()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_the_help_ends_with_an_example_that_can_be_typed(
    name: str, parser: argparse.ArgumentParser
) -> None:
    example = EXAMPLES[name]
    assert parser.format_help().endswith(f"Example:\n  $ {example}\n")
    assert f"\n$ {example}\n" in (DOCS / "commands.md").read_text()
    words = shlex.split(example.split(" > ")[0])
    started = ["run_production.py"] if name == "run" else ["production", *name.split()]
    assert words[: len(started)] == started
    parser.parse_args(words[len(started) :])


def test_the_check_would_notice() -> None:
    parser, _ = command_parser("status", "production status")
    with pytest.raises(UsageError):
        parser.parse_args(["--nothing"])


# ------------------------------------------------------------------------------- pages


def test_there_is_a_page_of_each_command(written: Path) -> None:
    pages = {path.name for path in (written / "man1").iterdir()}
    commands = {f"production-{name}.1" for name in COMMANDS}
    assert pages == {"production.1", "run_production.py.1", *commands}


def test_groff_finds_nothing_wrong(written: Path) -> None:
    groff = need("groff", "groff-base")
    for page in sorted((written / "man1").iterdir()):
        argv = [groff, "-man", "-Tutf8", "-ww", "-z", str(page)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), page.name


def test_groff_would_have_noticed(tmp_path: Path) -> None:
    groff = need("groff", "groff-base")
    (tmp_path / "bad.1").write_text('.TH "BAD" 1\n.SH NAME\nbad \\- \\[nosuchglyph]\n')
    argv = [groff, "-man", "-Tutf8", "-ww", "-z", str(tmp_path / "bad.1")]
    assert subprocess.run(argv, capture_output=True, check=False).stderr


def read(written: Path, title: str) -> str:
    """A page as man finds and shows it, in one line."""
    man = need("man", "man-db")
    done = subprocess.run(
        [man, "--warnings", "-M", str(written), title],
        env={"MANWIDTH": "1000", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    plain = re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout)
    return " ".join(plain.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "datasets", "set", "trace"])
def test_man_shows_what_the_help_tells(written: Path, name: str) -> None:
    shown = read(written, f"production-{name}")
    assert COMMANDS[name] in shown
    for command, parser in parsers():
        if command.split()[0] != name:
            continue
        assert EXAMPLES[command].replace("  ", " ") in shown
        for action in parser._actions:
            assert all(option in shown for option in action.option_strings)
            text = parser._get_formatter()._expand_help(action)
            assert " ".join(text.replace("`", "").split()) in shown


@pytest.mark.slow
def test_man_shows_all_commands_and_exit_codes(written: Path) -> None:
    shown = read(written, "production")
    for name, what in COMMANDS.items():
        assert f"production-{name}(1) {what}" in shown
    for code, what in exit_codes().items():
        assert f"{code} {what}" in shown


@pytest.mark.slow
def test_the_front_door_has_a_page_of_its_own(written: Path) -> None:
    assert "run_production.py - process the runs" in read(written, "run_production.py")


def test_one_page_is_printed(capsys: pytest.CaptureFixture[str], written: Path) -> None:
    assert main(["man", "status"]) == 0
    assert capsys.readouterr().out == (written / "man1" / "production-status.1").read_text()
    assert main(["man"]) == 0
    assert capsys.readouterr().out == (written / "man1" / "production.1").read_text()


def test_a_directory_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "man1").write_text("a file")
    assert main(["man", f"--directory={tmp_path}"]) == 49
    assert str(tmp_path / "man1") in capsys.readouterr().err


def test_text_is_shown_as_it_is() -> None:
    assert literal(r"\fB-'`^~…é") == r"\efB\-\(aq\(ga\(ha\(ti\[u2026]\[u00E9]"
    assert literal("plain words, 12%") == "plain words, 12%"
