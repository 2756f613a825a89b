"""A broken recipe is refused with its file, the line of the mistake, and what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from production.errors import RecipeError
from production.recipe import find_recipe, parse_recipe
from production.toml import line_of

GOOD = """\
name = "toy"
description = "a toy"
base = "alcapana"

[input.raw]
from = "archive"
file = "run%05d.mid"

[input.tree]
from = "base"
output = "tree"

[job]
script = "job.sh"
arguments = ["{run}", "{raw}", "{tree}", "{hist}", "{odb}", "{modules}"]

[job.variables]
LEVEL = "{version}"

[job.options]
calib = ["-c"]
cut = ["--cut", "{cut}"]

[output.hist]
path = "hist/v{version}/hist{run:05d}.root"

[output.odb]
path = "odb/v{version}/odb{run:05d}.odb"

[log]
path = "log/v{version}/toy.run{run:05d}"

[modules]
file = "MODULES"

[requirements]
time = "1h4m"
memory = "2G"
cores = 1

[exit_codes]
3 = "the raw file is missing"
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recipes")
    (directory / "job.sh").touch()
    return directory / "toy.toml"


def test_the_recipe_without_mistakes_is_good(path: Path) -> None:
    assert parse_recipe(GOOD, path).name == "toy"


# What is replaced, by what, on which line the mistake then is, and what is said of it.
MISTAKES = [
    # not TOML
    ('"a toy"', '"a toy', 2, "Illegal character"),
    ('base = "alcapana"', "base = alcapana", 3, "Invalid value (column 8)"),
    ("[job]", "[job", 13, "Expected ']'"),
    ('"{modules}"]', '"{modules}"', 17, "Unclosed array"),
    ('description = "a toy"', 'description = """a\n\ntoy', 2, "Unterminated string"),
    ("[log]", "[output.hist]", 30, "twice"),
    ("cores = 1", "cores = " + "9" * 5000, 39, "limit"),
    # keys
    ("description", "descripton", 2, "'descripton' is not a key of this file; did you mean 'desc"),
    ("[requirements]", "[requirement]", 36, "did you mean 'requirements'?"),
    ("cores = 1", "core = 1", 39, "'core' is not a key of [requirements]; did you mean 'cores'?"),
    ("arguments", "zzz", 15, "it knows: arguments, options, script, variables"),
    ('file = "run%05d.mid"', 'output = "tree"', 7, "'output' is not a key of [input.raw]"),
    ('output = "tree"', 'file = "run%05d.mid"', 11, "'file' is not a key of [input.tree]"),
    ('name = "toy"', "", 1, "'name' is missing: it must be text in quotes"),
    ('script = "job.sh"', "", 13, "'script' is missing in [job]"),
    ('from = "archive"', "", 5, "'from' is missing in [input.raw]"),
    ('output = "tree"', "", 9, "'output' is missing in [input.tree]"),
    ('file = "MODULES"', "", 33, "'file' is missing in [modules]"),
    ('path = "odb/v{version}/odb{run:05d}.odb"', "", 27, "'path' is missing in [output.odb]"),
    # kinds
    ('"a toy"', "7", 2, "'description' must be text in quotes, not a whole number"),
    ('"a toy"', "2026-01-01", 2, "not a date or time"),
    ("cores = 1", "cores = true", 39, "'cores' must be a whole number, not true or false"),
    ("cores = 1", "cores = 0", 39, "'cores' must be 1 or more"),
    ('["-c"]', '"-c"', 21, "'calib' must be a list, not text in quotes"),
    ('["-c"]', "[7]", 21, "'calib' must be a list of: text in quotes, not a whole number"),
    ('[exit_codes]\n3 = "the raw file is missing"', "[[exit_codes]]", 41, "must be a table"),
    ('"{version}"', "4", 18, "'LEVEL' must be text in quotes"),
    # names
    ('name = "toy"', 'name = "boy"', 1, "the name is 'boy', but the file is called toy.toml"),
    ("[input.raw]", "[input.Raw]", 5, "the input name 'Raw' must be small letters"),
    ("[input.raw]", "[input.run]", 5, "'run' is already used"),
    ("[input.raw]", "[input.hist]", 5, "'hist' is already used"),
    ("[output.odb]", '[output."o-db"]', 27, "the output name 'o-db' must be small letters"),
    ("[output.odb]", "[output.modules]", 27, "'modules' is already used"),
    ("[output.odb]", "[output.status]", 27, "an output cannot be called 'status'"),
    ("[output.odb]", "[output.order]", 27, "an output cannot be called 'order'"),
    ("[output.odb]", "[output.current_date]", 27, "an output cannot be called 'current_date'"),
    ("calib = ", "raw = ", 21, "the option name 'raw' is already used"),
    ("LEVEL", '"A LEVEL"', 18, "'A LEVEL' is not the name of an environment variable"),
    # base
    ('base = "alcapana"', 'base = "toy"', 3, "a type cannot be its own base"),
    ('base = "alcapana"', "", 10, 'an input from the base needs base = "TYPE"'),
    ('from = "archive"', 'from = "tape"', 6, "'from' must be \"archive\" or \"base\", not 'tape'"),
    ('from = "base"\noutput = "tree"', 'from = "archive"', 3, "no input is from the base"),
    # fields
    ('"{run}"', '"{rnu}"', 15, "'arguments': {rnu} is not a field here; did you mean 'run'?"),
    ('"{run}"', '"{cut}"', 15, "{cut} is not a field here"),
    ('"{run}"', '"{run.real}"', 15, "{run.real} is not a field here"),
    ('"{run}"', '"{}"', 15, "{} is not a field here"),
    ('"{run}"', '"{run!r}"', 15, "{run!r}: write {run}"),
    ('"{run}"', '"{run:>9999999}"', 15, "{run:>9999999}: write {run}, or {run:05d}"),
    ('"{run}"', '"{raw:05d}"', 15, "{raw:05d}: write {raw}"),
    ('"{run}"', '"{run"', 15, "a brace itself is written {{ or }}"),
    ('"{run}"', '"a\\u0000"', 15, "NUL"),
    ('"{cut}"', '"{cat}"', 22, "'cut': {cat} is not a field here; did you mean"),
    ('"{version}"', '"{versoin}"', 18, "'LEVEL': {versoin} is not a field here"),
    ('[modules]\nfile = "MODULES"', "", 15, "{modules} is not a field here"),
    # paths
    ("odb/v{version}/odb{run:05d}", "odb/v{version}/odb", 28, "must contain {run}"),
    ("odb/v{version}/odb{run:05d}", "odb/odb{run}", 28, "must contain {version}"),
    ("odb/v{version}/odb{run:05d}", "/odb/v{version}/odb{run}", 28, "must be relative"),
    ("odb/v{version}/odb{run:05d}", "~/odb/v{version}/odb{run}", 28, "must be relative"),
    ("odb/v{version}/odb{run:05d}", "odb/v{version}/../odb{run}", 28, "without '.', '..'"),
    ("odb/v{version}/odb{run:05d}.odb", "odb/v{version}/odb{run}/", 28, "a plain path to a file"),
    ("odb/v{version}/odb{run:05d}", "odb{version}{run:05d}", 28, "not a digit between two"),
    ("odb/v{version}/odb{run:05d}", "odb/v{version}/{raw}{run}", 28, "{raw} is not a field"),
    ("odb/v{version}/odb{run:05d}", "odb/v{version}\\n/odb{run}", 28, "cannot be printed"),
    ("odb/v{version}/odb{run:05d}.odb", "hist/v{version}/hist%d.root", 28, "same path as output"),
    ("odb/v{version}/odb{run:05d}.odb", "log/v{version}/toy.run{run}.out", 28, "as the log"),
    ("log/v{version}/toy.run{run:05d}", "log/toy.run{run:05d}", 31, "must contain {version}"),
    ("run%05d.mid", "run%s.mid", 7, "must contain {run}"),
    # the rest
    ("job.sh", "jobb.sh", 14, "there is no job script jobb.sh in "),
    ("job.sh", "x" * 5000, 14, "there is no job script"),
    ("job.sh", "$NOT_SET_ANYWHERE/job.sh", 14, "variable $NOT_SET_ANYWHERE is not set"),
    ("1h4m", "one hour", 37, "'time': 'one hour' is not a time: write"),
    ('"1h4m"', "01:04:00", 37, "'time' must be a number or text in quotes, not a date or time"),
    ('"1h4m"', "-1", 37, "'-1' is not a time"),
    ('"1h4m"', "inf", 37, "'inf' is not a time"),
    ("2G", "2000", 38, "'memory': '2000' is not a size: write it with its unit"),
    ("3 = ", "0 = ", 42, "'0' is not an exit code of a failure"),
    ("3 = ", "three = ", 42, "'three' is not an exit code"),
    ("3 = ", "256 = ", 42, "'256' is not an exit code"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"), MISTAKES, ids=[f"{m[2]}-{m[3][:40]}" for m in MISTAKES]
)
def test_a_mistake_is_named(path: Path, old: str, new: str, line: int, message: str) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(RecipeError) as caught:
        parse_recipe(GOOD.replace(old, new, 1), path)
    said = str(caught.value)
    assert said.startswith(f"Recipe {path}:{line}: ")
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["toy_v3", "sqlite_toy", "3toy", "to-y", "tóy"])
def test_a_name_that_the_database_cannot_take_is_refused(path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=rf"{name}\.toml:1: the name '{name}' must be letters"):
        parse_recipe(GOOD.replace('"toy"', f'"{name}"'), path.with_name(f"{name}.toml"))


def test_a_file_that_is_not_text_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_bytes(b'name = "toy"\ndescription = "\xe9"\n')
    with pytest.raises(RecipeError, match=r"toy\.toml:2: this is not UTF-8 text"):
        find_recipe("toy", [tmp_path])


# --------------------------------------------------------------------------- lines


TRICKY = '''\
# a = 1
text = """
[job]
script = "no"
"""
"job".'script' = "yes"
inline = { job = { script = 1 } }
[deep]

"a.b" = [
  1,
]
c.d = 2
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ((), 1),
        (("a",), 1),
        (("text",), 2),
        (("job",), 6),
        (("job", "script"), 6),
        (("inline", "job", "script"), 7),
        (("deep",), 8),
        (("deep", "missing"), 8),
        (("deep", "a.b"), 10),
        (("deep", "c", "d"), 13),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_keys_are_found_where_they_stand(key: tuple[str, ...], line: int, newline: str) -> None:
    assert line_of(TRICKY.replace("\n", newline), key) == line


# --------------------------------------------------------------------------- anything at all


def assert_only_lawful_errors(text: str, path: Path) -> None:
    try:
        parse_recipe(text, path)
    except RecipeError as error:
        where = re.match(rf"Recipe {re.escape(str(path))}:(\d+): \S", str(error))
        assert where
        assert 1 <= int(where[1]) <= text.count("\n") + 1
        assert "\n" not in str(error)


@settings(deadline=None)
@given(text=st.text())
def test_any_text_is_refused_cleanly(path: Path, text: str) -> None:
    assert_only_lawful_errors(text, path)


VALUES = ["0", "-1", "1e400", "nan", "true", '""', '"{"', '"{run}"', '"~x"', "[]", "[[]]", "{}"]
VALUES += ['"\\u0000"', "07:00:00", "{a = 1}", '["{hist}", 1]', '"%d{version}"', "'''\n'''", "0xf"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_recipe_with_damaged_lines_is_refused_cleanly(path: Path, data: st.DataObject) -> None:
    lines = GOOD.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(lines) - 1))
        line = lines[position]
        key = line.split("=")[0] + "= "
        values = st.sampled_from(VALUES).map(key.__add__)
        lines[position] = data.draw(
            values | st.sampled_from(["", "[job]", "[output]", "x"]) | st.text(max_size=9)
        )
    assert_only_lawful_errors("\n".join(lines), path)


def test_nesting_without_end_is_refused(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"toy\.toml:1: .* nested too deeply"):
        parse_recipe("x = " + "[" * 100000, path)
