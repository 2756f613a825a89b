"""Recipes: found by name, read, and completed for a run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from production.errors import ModulesUnreadable, RecipeError, UnknownRecipe
from production.model import Requirements
from production.recipe import (
    ArchiveInput,
    BaseInput,
    Recipe,
    find_recipe,
    known_recipes,
    modules_file,
    parse_recipe,
)
from production.recipe.model import FIXED_COLUMNS
from production.store import views
from production.templates import parse_path, parse_template
from production.units import counted, parse_duration, parse_fraction, parse_memory

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"

SMALL = """
name = "{name}"
description = "{description}"
[job]
script = "job.sh"
arguments = ["{{run}}"]
"""


def write_recipe(directory: Path, name: str, description: str = "", more: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "job.sh").touch()
    path = directory / f"{name}.toml"
    path.write_text(SMALL.format(name=name, description=description) + more)
    return path


def example_files(directory: Path) -> list[Path]:
    """The files that the page tells its reader to write."""
    blocks = re.findall(r"^```(?:toml|bash)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    paths = []
    for block in blocks:
        name = re.search(r"^# (?:recipe|script): (\S+)$", block, re.MULTILINE)
        assert name, f"a block without its file name: {block}"
        paths.append(directory / name[1])
        paths[-1].write_text(block)
    return paths


# --------------------------------------------------------------------------- the built-in ones


def test_alcapana_makes_the_files_that_people_know() -> None:
    recipe = find_recipe("alcapana", [])
    assert recipe.base is None
    assert recipe.inputs == (ArchiveInput("raw"),)
    assert {name: str(path) for name, path in recipe.output_paths(2091, 4).items()} == {
        "tree": "tree/v4/tree02091.root",
        "hist": "hist/v4/hist02091.root",
        "odb": "dump/v4/dump02091.odb",
    }
    out, err = recipe.log_paths(2091, 4)
    assert str(out) == "log/v4/alcapana.run02091.out"
    assert str(err) == "log/v4/alcapana.run02091.err"
    assert recipe.modules == "MODULES"
    assert recipe.requirements == Requirements(time=3840, memory=2 * 1024**3, cores=1)
    assert recipe.script.is_file()
    assert recipe.text == recipe.path.read_text()


def test_alcapana_is_told_its_files() -> None:
    fields = {"run": 1, "raw": "R", "hist": "H", "tree": "T", "odb": "O", "modules": "M"}
    arguments = find_recipe("alcapana", []).job_arguments(fields, {})
    assert arguments == ("1", "R", "H", "T", "O", "M")


def test_rootana_reads_the_tree_of_alcapana() -> None:
    recipe = find_recipe("rootana", [])
    assert recipe.base == "alcapana"
    assert recipe.base_inputs == (BaseInput("tree", "tree"),)
    assert recipe.archive_inputs == ()
    assert str(recipe.output_paths(2091, 8)["out"]) == "out/v8/out02091.root"


@pytest.mark.parametrize(
    ("options", "appended"),
    [
        ({}, ()),
        ({"calib": ""}, ("-c",)),
        ({"calibdatabase": "c.db", "calib": ""}, ("-c", "-d", "c.db")),
    ],
)
def test_options_that_are_given_append_their_arguments(
    options: dict[str, str], appended: tuple[str, ...]
) -> None:
    recipe = find_recipe("rootana", [])
    arguments = recipe.job_arguments({"tree": "T", "out": "O", "modules": "M"}, options)
    assert arguments == ("T", "O", "M", *appended)


def test_an_option_takes_a_value_when_its_arguments_contain_it() -> None:
    options = find_recipe("rootana", []).options
    assert not options["calib"].takes_value
    assert options["calibdatabase"].takes_value


# --------------------------------------------------------------------------- finding


def test_the_first_directory_that_has_the_recipe_wins(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_recipe(tmp_path / name, "toy", description=name)
    directories = [tmp_path / "absent", tmp_path / "first", tmp_path / "second"]
    assert find_recipe("toy", directories).description == "first"


def test_a_users_recipe_takes_the_place_of_the_built_in_one(tmp_path: Path) -> None:
    write_recipe(tmp_path, "alcapana", description="mine")
    assert find_recipe("alcapana", [tmp_path]).description == "mine"
    assert find_recipe("alcapana", []).description != "mine"


@pytest.mark.parametrize("name", ["nope", "../alcapana", "", "alcapana_v3", "x" * 5000])
def test_an_unknown_recipe_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    write_recipe(tmp_path, "toy")
    with pytest.raises(UnknownRecipe, match=r"Known recipes: alcapana, rootana, toy\."):
        find_recipe(name, [tmp_path])


def test_other_toml_files_beside_the_database_are_not_recipes(tmp_path: Path) -> None:
    write_recipe(tmp_path, "toy")
    (tmp_path / "production.toml").write_text('data = "x"\n')
    (tmp_path / "damaged.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "directory.toml").mkdir()
    assert known_recipes([tmp_path, tmp_path / "absent"]) == ("alcapana", "rootana", "toy")


def test_the_recipe_finds_its_script_and_file_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path / "recipes", "toy")
    monkeypatch.chdir(tmp_path)
    recipe = find_recipe("toy", [Path("recipes")])
    assert recipe.script == tmp_path / "recipes" / "job.sh"
    assert recipe.path == tmp_path / "recipes" / "toy.toml"


def test_a_script_can_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.sh").touch()
    monkeypatch.setenv("SCRIPTS_HERE", str(tmp_path))
    text = SMALL.format(name="toy", description="").replace("job.sh", "$SCRIPTS_HERE/x.sh")
    assert parse_recipe(text, Path("toy.toml")).script == tmp_path / "x.sh"


@pytest.mark.parametrize(
    ("base", "output", "message"),
    [
        ("rootana", "ouut", ":11: rootana makes no output 'ouut'; did you mean 'out'?"),
        ("rotana", "out", ":3: there is no recipe 'rotana'; did you mean 'rootana'?"),
    ],
)
def test_the_base_must_make_what_is_read(
    tmp_path: Path, base: str, output: str, message: str
) -> None:
    path = write_recipe(tmp_path, "toy")
    own = path.read_text().replace('description = ""', f'base = "{base}"')
    path.write_text(f'{own}\n[input.x]\nfrom = "base"\n\noutput = "{output}"\n')
    with pytest.raises(RecipeError, match=re.escape(f"{path}{message}")):
        find_recipe("toy", [tmp_path])


# --------------------------------------------------------------------------- modules


def test_the_modules_file_lies_beside_the_recipe_or_in_a_directory(tmp_path: Path) -> None:
    more = '[modules]\nfile = "toy.cfg"\n'
    write_recipe(tmp_path / "recipes", "toy", more=more)
    recipe = find_recipe("toy", [tmp_path / "recipes"])
    with pytest.raises(ModulesUnreadable, match=r"toy\.cfg cannot be read: it is not in"):
        modules_file(recipe, [tmp_path / "other"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "toy.cfg").touch()
    assert modules_file(recipe, [tmp_path / "other"]) == tmp_path / "other" / "toy.cfg"
    (tmp_path / "recipes" / "toy.cfg").touch()
    assert modules_file(recipe, [tmp_path / "other"]) == tmp_path / "recipes" / "toy.cfg"


def test_a_type_without_modules_has_no_modules_file(tmp_path: Path) -> None:
    write_recipe(tmp_path, "toy")
    assert modules_file(find_recipe("toy", [tmp_path]), [tmp_path]) is None


def test_a_modules_file_below_an_unset_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAQ_NOWHERE", raising=False)
    write_recipe(tmp_path, "toy", more='[modules]\nfile = "$DAQ_NOWHERE/MODULES"\n')
    with pytest.raises(ModulesUnreadable, match=r"\$DAQ_NOWHERE is not set"):
        modules_file(find_recipe("toy", [tmp_path]), [])


# --------------------------------------------------------------------------- templates and units


@pytest.mark.parametrize("text", ["run%05d.mid", "run{run:05d}.mid", "run{run:05}.mid"])
def test_run_numbers_are_written_in_both_notations(text: str) -> None:
    assert parse_path(text, ("run",)).expand({"run": 91}) == "run00091.mid"


def test_runs_of_more_digits_are_written_in_full() -> None:
    assert parse_path("run%05d.mid", ("run",)).expand({"run": 1234567}) == "run1234567.mid"


def test_braces_are_written_twice() -> None:
    assert parse_template("awk '{{print {run}}}'", ("run",)).expand({"run": 7}) == "awk '{print 7}'"


def test_values_are_put_in_as_they_are() -> None:
    assert parse_template("{raw}", ("raw",)).expand({"raw": "/a{run}/%05d"}) == "/a{run}/%05d"


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 runs left"), (1, "1 run left"), (2, "2 runs left")]
)
def test_counts_in_words(number: int, words: str) -> None:
    assert counted(number, "run left", "runs left") == words
    assert f"{counted(number, 'run')} left" == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("1h4m", 3840),
        ("1H 4M", 3840),
        ("1.5h", 5400),
        ("2d12h", 216000),
        ("01:04:00", 3840),
        ("100:00:01", 360001),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0h", "soon", "4m1h", "1h1h", "-5", "1:30", "01:60:00", "inf", "nan", "1e3"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time: write 90"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("500M", 500 * 2**20), ("2G", 2**31), ("1.5 GB", 3 * 2**29), ("1TiB", 2**40), ("8k", 8192)],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "2000", "0G", "-1G", "2GG", "2P", "G", "infG"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it with its unit"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "fraction"), [("90", 0.9), ("90%", 0.9), ("0.9", 0.9), ("1%", 0.01), ("100", 1.0)]
)
def test_limits_of_space(text: str, fraction: float) -> None:
    assert parse_fraction(text) == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["", "0", "101", "200%", "-5", "much", "nan", "90%%"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a limit"):
        parse_fraction(text)


def test_no_output_can_have_the_name_of_a_column_of_the_database() -> None:
    assert set(views.FIXED_COLUMNS) <= set(FIXED_COLUMNS)


# --------------------------------------------------------------------------- the page


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    example_files(tmp_path)
    (tmp_path / "fit_spectra.sh").touch()
    return tmp_path


def test_every_recipe_of_the_page_is_a_good_one(examples: Path) -> None:
    names = [path.stem for path in examples.glob("*.toml")]
    assert set(names) == {"rawcheck", "spectra", "merged"}
    recipes = {name: find_recipe(name, [examples]) for name in names}
    assert recipes["spectra"].requirements == Requirements(time=9000, memory=2**32, cores=2)
    assert recipes["spectra"].base_inputs == (BaseInput("out", "out"),)
    assert [given.is_pattern for given in recipes["merged"].archive_inputs] == [True, False]


def run_example(recipe: Recipe, raw: Path, summary: Path, options: dict[str, str]) -> int:
    fields = {"run": 2091, "version": 1, "software": "first", "raw": raw, "summary": summary}
    completed = subprocess.run(
        ["bash", recipe.script, *recipe.job_arguments(fields, options)],
        env={"PATH": "/usr/bin:/bin", **recipe.job_variables(fields)},
    )
    return completed.returncode


def test_the_example_of_the_page_works(examples: Path) -> None:
    recipe = find_recipe("rawcheck", [examples])
    raw, summary = examples / "run02091.mid", examples / "summary02091.txt"
    raw.write_bytes(bytes(10000))
    assert run_example(recipe, raw, summary, {"level": "9"}) == 0
    lines = summary.read_text().splitlines()
    assert lines[:3] == ["run      2091", "software first", "bytes    10000"]
    raw.write_bytes(b"")
    code = run_example(recipe, raw, summary, {})
    assert recipe.exit_codes[code] == "the raw file is empty"


def test_the_mistake_of_the_page_is_reported_as_the_page_says(examples: Path) -> None:
    path = examples / "rawcheck.toml"
    path.write_text(path.read_text().replace('"{run}"', '"{rnu}"'))
    shown = re.search(r"^    Recipe /home/me/data/(.*)$", PAGE.read_text(), re.MULTILINE)
    assert shown
    with pytest.raises(RecipeError) as caught:
        find_recipe("rawcheck", [examples])
    assert str(caught.value) == f"Recipe {examples}/{shown[1]}"


@pytest.mark.parametrize(
    ("place", "table"),
    [
        ("", ""),
        ("input.NAME.", '[input.x]\nfrom = "archive"'),
        ("input.NAME.", '[input.x]\nfrom = "base"'),
        ("job.", '[job]\nscript = "job.sh"'),
        ("output.NAME.", "[output.x]"),
        ("log.", "[log]"),
        ("modules.", "[modules]"),
        ("requirements.", "[requirements]"),
    ],
)
def test_every_key_is_documented(tmp_path: Path, place: str, table: str) -> None:
    (tmp_path / "job.sh").touch()
    others = "" if place in ("", "job.") else '[job]\nscript = "job.sh"'
    text = f'name = "toy"\n{others}\n{table}\nzzzzzz = 1\n'
    with pytest.raises(RecipeError, match=r"'zzzzzz' is not a key .*; it knows: ") as caught:
        parse_recipe(text, tmp_path / "toy.toml")
    page = PAGE.read_text()
    for key in str(caught.value).split("it knows: ")[1].split(", "):
        assert re.search(rf"^\| `{re.escape(place + key)}[.`]", page, re.MULTILINE), key
