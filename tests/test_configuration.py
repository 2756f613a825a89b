"""The configuration: which file is read, what it may say, and what is said of its mistakes."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from production.config import Configuration, Defaults, Space, load, parse_configuration
from production.errors import ConfigurationError
from production.model import RunFilter

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a configuration."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PRODUCTION_CONFIG", raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "production.db").touch()
    return tmp_path / "shared" / "production.db"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def parsed(text: str) -> Configuration:
    return parse_configuration(text, Path("/etc/production.toml"))


def test_what_probes_of_the_space_may_be_told(home: Path) -> None:
    space = parsed("""
        [space]
        probe = "command"
        device = "gpfs01:data"
        limit = "2T"
        files = 1000
        command = ["~/quota", "mu2e"]
    """).space
    own = (str(home / "quota"), "mu2e")
    assert space == Space("command", "gpfs01:data", 2 * 1024**4, 1000, own)


# --------------------------------------------------------------------------- which file


def test_without_a_file_all_is_default(database: Path, home: Path) -> None:
    configuration = load(None, database)
    assert configuration.path == database.parent / "production.toml"
    assert configuration.data == home / "data"
    assert configuration.batch.system == "local"
    assert configuration.defaults == Defaults()
    assert configuration.defaults.quality == RunFilter().qualities


def test_the_search_goes_from_the_option_to_the_home_directory(
    database: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(explicit: Path | None = None) -> str:
        return load(explicit, database).batch.system

    write(home / ".config" / "production" / "config.toml", 'batch.system = "of the home"')
    assert found() == "of the home"
    write(database.parent / "production.toml", 'batch.system = "of the database"')
    assert found() == "of the database"
    variable = write(tmp_path / "v.toml", 'batch.system = "of the variable"')
    monkeypatch.setenv("PRODUCTION_CONFIG", str(variable))
    assert found() == "of the variable"
    option = write(home / "o.toml", 'batch.system = "of the option"')
    assert found(option) == "of the option"
    assert found(Path("~/o.toml")) == "of the option"


def test_beside_a_linked_database_the_link_comes_first(database: Path, home: Path) -> None:
    link = home / "data" / "production.db"
    link.parent.mkdir()
    link.symlink_to(database)
    write(database.parent / "production.toml", 'batch.system = "of the group"')
    assert load(None, link).batch.system == "of the group"
    write(link.parent / "production.toml", 'batch.system = "mine"')
    assert load(None, link).batch.system == "mine"
    assert load(None, link).recipe_directories(link) == (link.parent, database.parent)
    assert load(None, database).batch.system == "of the group"


def test_a_named_file_must_exist(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "absent.toml"
    with pytest.raises(ConfigurationError, match=r"absent\.toml: there is no such file \(--config"):
        load(absent, database)
    monkeypatch.setenv("PRODUCTION_CONFIG", str(absent))
    with pytest.raises(ConfigurationError, match=r"no such file \(\$PRODUCTION_CONFIG names it"):
        load(None, database)
    with pytest.raises(ConfigurationError, match="there is no home directory ~nobody-here"):
        load(Path("~nobody-here/x.toml"), database)


# --------------------------------------------------------------------------- what it says


def test_paths_count_from_the_file(
    database: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAQ", "/opt/daq")
    text = """
        data = "../big"
        [environment]
        script = "~/thisdaq.sh"
        [environment.variables]
        DAQdir = "${DAQ}/x"
        EMPTY = ""
        [recipes]
        directories = ["recipes", "/opt/recipes"]
        [modules]
        alcapana = "$DAQ/MODULES"
    """
    write(tmp_path / "conf" / "c.toml", text)
    monkeypatch.chdir(tmp_path)
    configuration = load(Path("conf/c.toml"), database)
    assert configuration.data == tmp_path / "conf" / ".." / "big"
    assert configuration.environment.script == home / "thisdaq.sh"
    assert configuration.environment.variables == {"DAQdir": "/opt/daq/x", "EMPTY": ""}
    assert configuration.modules == {"alcapana": Path("/opt/daq/MODULES")}
    assert configuration.recipe_directories(database) == (
        database.parent,
        tmp_path / "conf" / "recipes",
        Path("/opt/recipes"),
    )


def test_values_of_every_section() -> None:
    configuration = parsed("""
        [archive]
        url = "ftp://archive.example.org/run2013"
        file = "R13/run{run:06d}.mid"
        timeout = "2m"
        stage_timeout = 0.5
        [space]
        probe = "statvfs"
        [batch]
        system = "sge"
        [batch.sge]
        queue = ["all.q"]
        [defaults]
        pause = 0.1
        nprep = 0
        spacelim = 85
        back_off = "1m"
        tranche = [1, 2]
        quality = []
    """)
    assert configuration.archive_urls() == ("ftp://archive.example.org/run2013",)
    (location,) = configuration.archive.file
    assert location.name.expand({"run": 91}) == "R13/run000091.mid"
    assert configuration.archive.timeout == 120
    assert configuration.archive.stage_timeout == 0.5
    assert configuration.space.probe == "statvfs"
    assert configuration.batch.options == {"sge": {"queue": ["all.q"]}}
    assert configuration.defaults == Defaults(
        pause=0.1, nprep=0, spacelim=0.85, back_off=60, tranche=(1, 2), quality=()
    )


def test_who_needs_an_archive_is_told_where_to_name_it(database: Path) -> None:
    expected = f"{database.parent}/production.toml: the archive of the raw files is not named"
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        load(None, database).archive_urls()


# --------------------------------------------------------------------------- mistakes

MISTAKES = [
    ("data = ", 1, "Invalid value"),
    ("\n[archive", 2, "Expected ']'"),
    ("dta = 1", 1, "'dta' is not a key of this file; did you mean 'data'?"),
    ("path = '/x'", 1, "'path' is not a key of this file"),
    ("data = 7", 1, "'data' must be text in quotes, not a whole number"),
    ("data = ''", 1, "'data': '' is not a path"),
    ("data = '$NOT_SET_ANYWHERE/x'", 1, "the environment variable $NOT_SET_ANYWHERE is not set"),
    ("data = '~nobody-here/x'", 1, "there is no home directory ~nobody-here"),
    ("archive = 'ftp://x'", 1, "'archive' must be a table"),
    ("[archive]\nuri = 'ftp://x'", 2, "'uri' is not a key of [archive]; did you mean 'url'?"),
    ("[archive]\n\nfile = 'run.mid'", 3, "'file': 'run.mid' must contain {run}"),
    ("[archive]\ntimeout = 0", 2, "'timeout': '0' is not a time"),
    ("[archive]\ntimeout = true", 2, "must be a number or text in quotes, not true or false"),
    ("[archive]\nstage_timeout = inf", 2, "'inf' is not a time"),
    ("[space]\nprobe = 1", 2, "'probe' must be text"),
    ("[space]\nlimit = 2", 2, "'limit': '2' is not a size"),
    ("[space]\nfiles = 0", 2, "'files' must be 1 or more"),
    ('[space]\ncommand = "quota"', 2, "'command' must be a list"),
    ("[batch]\nslots = 4", 2, "'slots' must be a table, not a whole number"),
    ("[environment]\nvariable = 1", 2, "did you mean 'variables'?"),
    ("[environment.variables]\n'A-B' = 'x'", 2, "'A-B' is not the name of an environment variable"),
    ("[environment.variables]\nA = 1", 2, "'A' must be text in quotes"),
    ("[recipes]\ndirectories = 'x'", 2, "'directories' must be a list, not text"),
    ("[recipes]\ndirectories = [1]", 2, "'directories' must be a list of: text in quotes"),
    ("[modules]\nalcapana = 1", 2, "'alcapana' must be text in quotes"),
    ("[defaults]\nnproc = 0", 2, "'nproc' must be 1 or more"),
    ("[defaults]\nnproc = 1.5", 2, "'nproc' must be a whole number, not a decimal number"),
    ("[defaults]\nspacelim = 120", 2, "'spacelim': '120' is not a limit"),
    ("[defaults]\ntranche = [0]", 2, "'tranche': tranches are counted from 1"),
    ("[defaults]\npause = '5 parsecs'", 2, "'pause': '5 parsecs' is not a time"),
]


@pytest.mark.parametrize(
    ("text", "line", "message"), MISTAKES, ids=[message[:40] for _, _, message in MISTAKES]
)
def test_a_mistake_is_named(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed(text)
    said = str(caught.value)
    assert said.startswith(f"Configuration /etc/production.toml:{line}: ")
    assert message in said
    assert "\n" not in said


def test_a_file_that_is_not_text_is_refused(database: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\n\n\xff")
    with pytest.raises(ConfigurationError, match=r"c\.toml:3: this is not UTF-8 text"):
        load(tmp_path / "c.toml", database)


def test_a_place_whose_name_is_not_text_is_refused(database: Path, tmp_path: Path) -> None:
    file = write(tmp_path / os.fsdecode(b"caf\xe9") / "c.toml", "data = 'data'")
    with pytest.raises(ConfigurationError, match=r"data.*caf.udce9/data' is not UTF-8 text"):
        load(file, database)


KEYS = ["data", "[archive]", "[defaults]", "[batch]", "[environment.variables]", "modules.x"]
KEYS += ["archive.timeout", "defaults.nproc", "defaults.spacelim", "batch.local", "recipes"]
VALUES = ["", " = 1", " = 'x'", " = '~'", " = '${'", " = 'a\\u0000'", " = [1]", " = {}", " = nan"]


@settings(deadline=None)
@given(
    text=st.text()
    | st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map("".join)).map(
        "\n".join
    )
)
def test_any_text_is_read_or_refused_cleanly(text: str) -> None:
    try:
        parsed(text)
    except ConfigurationError as error:
        where = re.match(r"Configuration /etc/production.toml:(\d+): \S", str(error))
        assert where
        assert 1 <= int(where[1]) <= text.count("\n") + 1
        assert "\n" not in str(error)


# --------------------------------------------------------------------------- the page


def documented() -> dict[str, str]:
    """Each key of the page's table and its default as it is written in TOML."""
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`([^`]*)`)? *\|", PAGE.read_text(), re.MULTILINE)
    return dict(rows)


def test_every_key_is_documented() -> None:
    keys = set()
    for name, value in vars(parsed("")).items():
        if dataclasses.is_dataclass(value):
            keys |= {f"{name}.{field.name}" for field in dataclasses.fields(value)}
        else:
            keys.add(name)
    keys -= {"path", "modules", "batch.options"}  # not keys, or names of the user's choice
    assert keys | {"modules.TYPE", "batch.SYSTEM"} == set(documented())


@pytest.mark.parametrize("key", [key for key, default in documented().items() if default])
def test_the_documented_defaults_are_the_real_ones(key: str) -> None:
    configuration = parse_configuration(f"{key} = {documented()[key]}", Path("/etc/x.toml"))
    assert configuration == parse_configuration("", Path("/etc/x.toml"))


def test_the_example_of_the_page_is_a_good_one(home: Path) -> None:
    example = re.search(r"^```toml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert example
    configuration = parsed(example[1])
    assert configuration.archive_urls() == ("ftp://archivftp.psi.ch/mu2e/run2013",)
    assert configuration.environment.variables == {"DAQdir": str(home / "DAQ")}
    assert configuration.defaults.spacelim == 0.85
