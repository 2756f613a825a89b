"""run_production.py before it does anything: its help, its options, and what it refuses.

A refusal is one line on stderr with an exit code of its own, and nothing is changed, neither in
the database nor on disk.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from laboratory import Laboratory, Said, laboratory

from production.cli.parser import Parser
from production.cli.run_command import arguments

pytestmark = pytest.mark.slow

ALCAPANA = "--production=alcapana"
ROOTANA = "--production=rootana"
NEW = "--new=alcapana_v9"

# The options as the help text of 2014 spells them, those that came in 2016, and the new ones.
OF_2014 = (
    *("--production=PROD_TYPE", "-h, --help", "--usage", "--version=#", "--new=TAG", "--pause=#"),
    *("--nproc=#", "--nprep=#", "--spacelim=#", "--display", "--modules=FILE", "--dataset=SET"),
    "--database=DB",
)
OF_2016 = ("--tranche=#", "--calib", "--calibdatabase=DB")
NEW_ONES = (
    *("--quality=Q", "--batch=SYSTEM", "--config=FILE", "--dry-run", "--max-attempts=#"),
    *("--log-file=FILE", "--output={table,json,quiet}", "--option=NAME[=VALUE]"),
    *("--quiet", "--verbose"),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """One for all tests here: every test shows that it is left as it was found."""
    with laboratory(tmp_path_factory.mktemp("front door")) as made:
        made.finish(ALCAPANA, "--new=alcapana_v1")
        (made.data / "directory").mkdir()
        (made.data / "binary").write_bytes(b"\x7fELF\x02\x01\x01\x00\x00\xff\xfe")
        (made.data / "with nul").write_bytes(b"text\x00and more\n")
        (made.data / "nobody's").write_text("PlotMass\n")
        (made.data / "nobody's").chmod(0)
        yield made


def refused(lab: Laboratory, *arguments: object, plain_user: bool = False) -> tuple[int, str]:
    """The exit code and the one line of a call that changes nothing."""
    before = lab.snapshot()
    said = lab.run(*arguments, plain_user=plain_user)
    assert lab.snapshot() == before
    return one_line(said)


def one_line(said: Said) -> tuple[int, str]:
    assert said.out == ""
    assert re.fullmatch(r"ERROR: .+\n", said.err), said.err
    return said.code, said.err.removeprefix("ERROR: ").rstrip("\n")


# ------------------------------------------------------------------------------- the help


@pytest.mark.parametrize("asked", [(), ("-h",), ("--help",), ("--usage",)])
def test_the_help_is_printed(lab: Laboratory, asked: tuple[str, ...]) -> None:
    before = lab.snapshot()
    said = lab.command("run_production.py", *asked)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(
        "usage: run_production.py --production=PROD_TYPE [optional arguments...]\n"
    )
    for option in (*OF_2014, *OF_2016, *NEW_ONES):
        assert re.search(rf"^  .*{re.escape(option)}(,|\s|$)", said.out, re.MULTILINE), option
    assert lab.snapshot() == before


def test_production_run_is_the_same_command(lab: Laboratory) -> None:
    ours = lab.production("run", "--help")
    theirs = lab.run("--help")
    assert ours.out.replace("production run", "run_production.py") == theirs.out


@pytest.mark.parametrize(
    ("option", "default"),
    [
        *(("pause", 5), ("nproc", 10), ("nprep", 5), ("spacelim", 90), ("max-attempts", 3)),
        *(("database", "~/data/production.db"), ("quality", "gold"), ("batch", "local")),
        *(("output", "table"), ("dataset", "all"), ("tranche", "all")),
    ],
)
def test_the_help_tells_the_default(lab: Laboratory, option: str, default: object) -> None:
    paragraphs = re.split(r"\n  (?=-)", lab.run("--help").out)
    (paragraph,) = [text for text in paragraphs if text.startswith(f"--{option}=")]
    assert f"(Default: {default})" in " ".join(paragraph.split())


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("90", 0.9), ("90%", 0.9), ("0.9", 0.9), ("100", 1.0), ("85.5", 0.855), ("1", 1.0)],
)
def test_spacelim_is_a_percentage_or_a_fraction(text: str, fraction: float) -> None:
    parser = Parser(prog="run_production.py")
    arguments(parser)
    options = parser.parse_args([ALCAPANA, f"--spacelim={text}"])
    assert options.spacelim == pytest.approx(fraction)


def test_the_defaults_of_2014_hold(lab: Laboratory) -> None:
    """What the help promises is what a manager gets: nothing is set by parsing alone."""
    from production.config import parse_configuration

    defaults = parse_configuration("", Path("/nowhere/production.toml")).defaults
    assert (defaults.pause, defaults.nproc, defaults.nprep) == (5, 10, 5)
    assert (defaults.spacelim, defaults.max_attempts) == (0.9, 3)
    assert (defaults.dataset, defaults.tranche, defaults.quality) == ((), (), ("gold",))
    parser = Parser(prog="run_production.py")
    arguments(parser)
    options = vars(parser.parse_args([ALCAPANA]))
    for name in ("pause", "nproc", "nprep", "spacelim", "max_attempts", "dataset", "quality"):
        assert options[name] is None  # the configuration's or the program's default


# ------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("--nosuch", "unrecognized arguments: --nosuch"),
        ("--dry-runn", "unrecognized arguments: --dry-runn"),
        ("--vers=3", "unrecognized arguments: --vers=3"),  # abbreviations would change meaning
        ("stray", "unrecognized arguments: stray"),
        ("--nproc", "argument --nproc: expected one argument"),
        ("--nproc=0", "argument --nproc: '0' is not a number of jobs from 1 to 100000"),
        ("--nproc=ten", "argument --nproc: 'ten' is not a number of jobs from 1 to 100000"),
        ("--nproc=2.5", "argument --nproc: '2.5' is not a number of jobs from 1 to 100000"),
        ("--nprep=-1", "argument --nprep: '-1' is not a number of runs from 0 to 100000"),
        ("--pause=0", "argument --pause: '0' is not a time from 0.1 s to 3600 s"),
        ("--pause=nan", "argument --pause: 'nan' is not a time from 0.1 s to 3600 s"),
        ("--max-attempts=0", "argument --max-attempts: '0' is not a number of attempts from 1"),
        ("--tranche=0", "argument --tranche: '0' is not a tranche from 1 to 1000000"),
        ("--version=v3", "argument --version: 'v3' is not a version number from 0 to 1000000"),
        ("--spacelim=0", "argument --spacelim: '0' is not a limit: write a percentage (90 or 90%)"),
        ("--spacelim=101", "argument --spacelim: '101' is not a limit"),
        ("--spacelim=much", "argument --spacelim: 'much' is not a limit"),
        ("--output=xml", "argument --output: invalid choice: 'xml'"),
        ("--database=", "argument --database: a file name must not be empty"),
        ("--display=yes", "argument --display: ignored explicit argument 'yes'"),
    ],
)
def test_a_wrong_option_is_refused(lab: Laboratory, given: str, complaint: str) -> None:
    code, line = refused(lab, ALCAPANA, given)
    assert code == 2
    assert line.startswith(complaint)
    assert line.endswith(". See run_production.py --help")


@pytest.mark.parametrize(
    ("given", "code", "complaint"),
    [
        (["--pause=1"], 2, "the following arguments are required: --production."),
        (
            [ALCAPANA, NEW, "--version=3"],
            2,
            "--version cannot be given with --new for alcapana: it is a primary type, and the new "
            "version number is the next free one",
        ),
        ([ALCAPANA, "--new="], 2, "--new needs the software tag: --new=TAG"),
        ([ALCAPANA, "--new= "], 2, "--new needs the software tag: --new=TAG"),
        (
            ["--production=alcapanna", NEW],
            4,
            "There is no recipe for --production=alcapanna. Known recipes: alcapana, rootana.",
        ),
        (["--production=../alcapana", NEW], 4, "There is no recipe for --production=../alcapana."),
        (["--production=", NEW], 4, "There is no recipe for --production=."),
        (
            [ALCAPANA, "--version=7"],
            18,
            "There is no alcapana production with version 7. Existing versions: 1",
        ),
        (
            [ROOTANA],
            18,
            "No rootana production exists yet, only of alcapana. Start the first one with: "
            "run_production.py --production=rootana --new=TAG",
        ),
        (
            [ROOTANA, NEW, "--version=2"],
            18,
            "rootana is made from alcapana: There is no alcapana production with version 2. "
            "Existing versions: 1",
        ),
        ([ALCAPANA, NEW, "--dataset=SiR3"], 17, "There is no dataset SiR3. Valid datasets: SiR2"),
        (
            [ALCAPANA, "--dataset=SiR2", "--dataset=Al50"],
            17,
            "There is no dataset Al50. Valid datasets: SiR2",
        ),
        (
            [ALCAPANA, NEW, "--quality=gold", "--quality=lead"],
            17,
            "No run of any dataset has quality lead. There are: gold",
        ),
        (
            [ALCAPANA, NEW, "--tranche=7"],
            17,
            "No run of any dataset has tranche 7. There are: ",
        ),
        (
            [ALCAPANA, NEW, "--batch=punchcards"],
            2,
            "There is no batch system 'punchcards'. Known batch systems: local",
        ),
        (
            [ALCAPANA, NEW, "--config=nosuch.toml"],
            3,
            "Configuration {home}/nosuch.toml: there is no such file (--config=FILE names it)",
        ),
        (
            [ALCAPANA, NEW, "--log-file=no/such/directory.log"],
            2,
            "--log-file=no/such/directory.log cannot be written: No such file or directory",
        ),
        ([ALCAPANA, NEW, "--calib"], 2, "alcapana has no option calib; its options: none"),
        (
            [ROOTANA, NEW, "--option=colour=red"],
            2,
            "rootana has no option colour; its options: calib, calibdatabase",
        ),
        ([ROOTANA, NEW, "--option=calib=yes"], 2, "option calib of rootana takes no value"),
        ([ROOTANA, NEW, "--option=calibdatabase"], 2, "option calibdatabase of rootana needs a"),
        (
            [ROOTANA, NEW, "--calibdatabase=nosuch.db"],
            2,
            "--calibdatabase=nosuch.db: there is no such file",
        ),
        (
            [ROOTANA, NEW, "--calibdatabase=data/directory"],
            2,
            "--calibdatabase=data/directory: there is no such file",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_refused(
    lab: Laboratory, given: list[str], code: int, complaint: str
) -> None:
    found, line = refused(lab, *given)
    assert found == code
    assert line.startswith(complaint.format(home=lab.home))


def test_a_derived_type_needs_a_base(tmp_path: Path) -> None:
    with laboratory(tmp_path) as lab:
        code, line = refused(lab, ROOTANA, NEW)
    assert code == 18
    assert line == (
        "rootana is made from alcapana: No alcapana production exists yet. "
        "Start the first one with: run_production.py --production=alcapana --new=TAG"
    )


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("nosuch.cfg", "No such file or directory"),
        ("directory", "Is a directory"),
        ("nobody's", "Permission denied"),
        ("binary", "it is not a UTF-8 text file"),
        ("with nul", "it is not a UTF-8 text file"),
    ],
)
def test_an_unreadable_modules_file_is_refused(lab: Laboratory, file: str, complaint: str) -> None:
    path = lab.data / file
    code, line = refused(lab, ROOTANA, NEW, f"--modules={path}", plain_user=True)
    assert code == 20
    assert line == (
        f"Modules file {path} cannot be read: {complaint}. Name a readable one with --modules=FILE."
    )


def test_everything_is_checked_in_a_dry_run_as_well(lab: Laboratory) -> None:
    assert refused(lab, ALCAPANA, NEW, "--dry-run", "--dataset=SiR3")[0] == 17
    assert refused(lab, ALCAPANA, NEW, "--dry-run", "--modules=nosuch")[0] == 20


# ------------------------------------------------------------------------------- other commands


@pytest.mark.parametrize(
    ("given", "code", "complaint"),
    [
        (["prodution"], 2, "there is no command 'prodution'. Commands: run, init, datasets,"),
        (["init"], 15, "{database} exists already; it was left as it is."),
        (["init", "--database=data/directory"], 15, "data/directory exists already; it was left"),
        (["init", "--database=data/binary/p.db"], 16, "Database data/binary/p.db: it cannot be "),
        (["datasets"], 2, "the following arguments are required: ACTION."),
        (["datasets", "delete", "SiR2"], 2, "argument ACTION: invalid choice: 'delete'"),
        (["datasets", "add", "", "2091"], 2, "argument NAME: a dataset needs a name."),
        (["datasets", "add", "Al50"], 2, "the following arguments are required: RUNS."),
        (["datasets", "add", "Al50", "9-3"], 2, "argument RUNS: the range 9-3 ends before it"),
        (["datasets", "add", "Al50", "x"], 2, "argument RUNS: 'x' is no list of runs: 'x' should"),
        (["datasets", "add", "Al50", "9" * 19], 2, f"argument RUNS: '{'9' * 19}' is no list of"),
        (["datasets", "add", "Al50", "7", "--tranche=0"], 2, "argument --tranche: '0' is not a"),
        (["datasets", "import", "nosuch.csv"], 19, "nosuch.csv: No such file or directory. Noth"),
        (["datasets", "import", "data"], 19, "data: Is a directory. Nothing was imported."),
        (["datasets", "import", "data/binary"], 19, "data/binary: not a CSV text file"),
        (["datasets", "import", "data/MODULES"], 19, "data/MODULES:1: unknown column 'common/mtr"),
        (["datasets", "list", "--output=xml"], 2, "argument --output: invalid choice: 'xml'"),
        (["import", "nosuch.db"], 19, "nosuch.db: No such file or directory. Nothing was import"),
        (["import", "data"], 19, "data: it is not a file. Nothing was imported."),
        (["import", "data/MODULES"], 19, "data/MODULES: it cannot be read as a database"),
        (["import", "{database}"], 19, "{database}: it is a database of this program, not an old"),
        (["status", "--database=nosuch.db"], 10, "Database nosuch.db does not exist. Create it "),
        (["retry"], 2, "the following arguments are required: --production."),
        (["retry", ROOTANA], 18, "No rootana production exists yet, only of alcapana."),
        (["retry", ALCAPANA, "--version=3"], 18, "There is no alcapana production with version 3."),
        (["retry", ALCAPANA, "2091-"], 2, "argument RUNS: '2091-' is no list of runs"),
        (["migrate", "--database=nosuch.db"], 10, "Database nosuch.db does not exist. Create it"),
        (["migrate", "--database=data"], 11, "data is not a production database: it is not a "),
        (["migrate", "--database=data/MODULES"], 11, "data/MODULES is not a production database"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_other_commands_refuse_in_the_same_way(
    lab: Laboratory, given: list[str], code: int, complaint: str
) -> None:
    before = lab.snapshot()
    said = lab.production(*(text.format(database=lab.database) for text in given))
    assert lab.snapshot() == before
    found, line = one_line(said)
    assert found == code
    assert line.startswith(complaint.format(database=lab.database))


@pytest.mark.parametrize("asked", [(), ("-h",), ("--help",), ("--usage",), ("help",)])
def test_production_lists_its_commands(lab: Laboratory, asked: tuple[str, ...]) -> None:
    said = lab.production(*asked)
    assert (said.code, said.err) == (0, "")
    for command in ("run", "init", "datasets", "import", "status", "retry", "migrate"):
        assert re.search(rf"^  {command} +\S", said.out, re.MULTILINE)


def test_a_reader_that_goes_away_is_no_failure(lab: Laboratory) -> None:
    said = lab.command("bash", "-c", "run_production.py --help | true; echo ${PIPESTATUS[0]}")
    assert said.err == ""
    assert int(said.out) in {0, 128 + signal.SIGPIPE}
