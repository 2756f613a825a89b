"""The example experiment: the numbers that come out are those of the ROOT files that went in."""

from __future__ import annotations

import bz2
import csv
import gzip
import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import alcapana
import cramjam
import make_raw
import midas
import modules
import numpy as np
import picture
import pytest
import rootana
import skhep_testdata
import uproot

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_genuine_files = pytest.mark.skipif(
    not SHARED.exists(), reason=f"genuine files are not there: {SHARED}"
)

RUNS = make_raw.read_run_list()
HZZ_RUN, ZMUMU_RUN = 2091, 2172


@pytest.fixture(scope="module")
def plan() -> dict[int, make_raw.Piece]:
    return make_raw.cut_into_runs(RUNS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, plan: dict[int, make_raw.Piece]) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    for run in (HZZ_RUN, ZMUMU_RUN):
        make_raw.write_piece(directory / f"run{run:05d}.mid", run, plan[run])
    return directory


def unpacked(path: Path, directory: Path, *options: str) -> Path:
    """The tree that alcapana makes, beside hist.root and dump.odb."""
    tree = directory / "tree.root"
    outputs = ["-o", directory / "hist.root", "-T", tree, "-D", directory / "dump.odb"]
    assert alcapana.main(["-i", str(path), *map(str, outputs), *options]) == 0
    return tree


def analysed(tree: Path, cfg: str, *options: str) -> Path:
    """The output that rootana makes with these modules."""
    out, modules_file = tree.with_name("out.root"), tree.with_name("modules.cfg")
    modules_file.write_text(cfg)
    arguments = ["-i", tree, "-o", out, "-m", modules_file]
    assert rootana.main([*map(str, arguments), *options]) == 0
    return out


def source(name: str) -> Any:
    return uproot.open(skhep_testdata.data_path(name))["events"]


def columns(tree: Path) -> dict[str, list[Any]]:
    with uproot.open(tree) as file:
        return {name: array.tolist() for name, array in zip_arrays(file["events"])}


def zip_arrays(tree: Any) -> list[tuple[str, Any]]:
    arrays = tree.arrays(library="ak")
    return [(name, arrays[name]) for name in tree.keys()]  # noqa: SIM118  a tree is no dict


def histogram(file: Path, name: str) -> tuple[list[float], list[float]]:
    with uproot.open(file) as root:
        counts, edges = root[name].to_numpy()
    return counts.tolist(), edges.tolist()


def mass_of_pairs(entries: range, min_pt: float = 0) -> list[float]:
    """The dimuon masses of HZZ events, once more, without numpy and awkward."""
    names = ("Px", "Py", "Pz", "E", "Charge")
    branches = [source(make_raw.HZZ)[f"Muon_{name}"].array().tolist() for name in names]
    found = []
    for entry in entries:
        muons = list(zip(*(branch[entry] for branch in branches), strict=True))
        muons = [muon for muon in muons if math.hypot(muon[0], muon[1]) >= min_pt]
        muons.sort(key=lambda muon: -math.hypot(muon[0], muon[1]))
        if len(muons) >= 2 and muons[0][4] * muons[1][4] < 0:
            px, py, pz, energy = (muons[0][i] + muons[1][i] for i in range(4))
            found.append(math.sqrt(max(energy**2 - px**2 - py**2 - pz**2, 0)))
    return found


# --------------------------------------------------------------------------- raw data


def test_all_runs_together_are_the_two_files(plan: dict[int, make_raw.Piece]) -> None:
    assert list(plan) == RUNS
    for file, total in ((make_raw.HZZ, 2421), (make_raw.ZMUMU, 516)):
        pieces = [piece for piece in plan.values() if piece.file == file]
        assert [piece.first for piece in pieces] == list(
            np.cumsum([0, *(len(piece.events) for piece in pieces)])[:-1]
        )
        assert sum(len(piece.events) for piece in pieces) == total


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["zlib", "lz4", "lzma", "zstd", "uncompressed"])
def test_the_same_physics_in_another_compression_makes_the_same_runs(
    plan: dict[int, make_raw.Piece], compression: str
) -> None:
    other = make_raw.cut_into_runs(
        RUNS, f"uproot-HZZ-{compression}.root", f"uproot-Zmumu-{compression}.root"
    )
    for run in RUNS:
        assert [midas.encode_banks(banks) for banks in other[run].events] == [
            midas.encode_banks(banks) for banks in plan[run].events
        ]


def test_run_files_have_the_same_bytes_each_time(tmp_path: Path, raw: Path) -> None:
    assert make_raw.main([str(tmp_path / "a"), "--runs", "2091-2092,2172"]) == 0
    names = ["run02091.mid", "run02092.mid", "run02172.mid"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for path in raw.iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


def test_run_files_that_are_there_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run02091.mid").write_text("mine")
    assert make_raw.main([str(tmp_path), "--runs=2091-2092"]) == 0
    assert (tmp_path / "run02091.mid").read_text() == "mine"
    assert capsys.readouterr().out == "1 run files written, 1 were there\n"


@pytest.mark.parametrize(
    ("ranges", "complaint"),
    [("2104", "not in runs.csv: 2104"), ("all", "'all' is neither a run nor a range of runs")],
)
def test_a_run_that_does_not_exist_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ranges: str, complaint: str
) -> None:
    with pytest.raises(SystemExit):
        make_raw.main([str(tmp_path), "--runs", ranges])
    assert complaint in capsys.readouterr().err


@needs_genuine_files
def test_the_run_list_is_the_real_one() -> None:
    with (SHARED / "alcap" / "alcap_runs.csv").open(newline="") as file:
        real = [
            {name: value for name, value in row.items() if name != "campaign"}
            for row in csv.DictReader(file)
            if (row["campaign"], row["dataset"]) == ("R13", "SiR2")
        ]
    with make_raw.RUN_LIST.open(newline="") as file:
        assert list(csv.DictReader(file)) == real


# --------------------------------------------------------------------------- alcapana


def test_the_tree_of_an_hzz_run_holds_the_numbers_of_the_file(
    tmp_path: Path, raw: Path, plan: dict[int, make_raw.Piece]
) -> None:
    piece = plan[HZZ_RUN]
    tree = columns(unpacked(raw / "run02091.mid", tmp_path))
    for bank, branch in make_raw.HZZ_BANKS.items():
        expected = source(make_raw.HZZ)[branch].array(entry_stop=len(piece.events)).tolist()
        expected = [value if isinstance(value, list) else [value] for value in expected]
        assert tree[bank] == expected
    assert tree["serial_number"] == list(range(1, len(piece.events) + 1))


def test_the_tree_of_a_zmumu_run_holds_the_numbers_of_the_file(
    tmp_path: Path, raw: Path, plan: dict[int, make_raw.Piece]
) -> None:
    first = plan[ZMUMU_RUN].first
    tree = columns(unpacked(raw / "run02172.mid", tmp_path))
    arrays = source(make_raw.ZMUMU).arrays(library="np")
    best = arrays["Type"] == "GG"
    for bank, (one, two) in make_raw.ZMUMU_BANKS.items():
        expected = np.stack([arrays[one][best], arrays[two][best]], axis=1)[first:]
        assert tree[bank] == expected.tolist()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, cramjam.lz4.compress])
def test_a_compressed_run_gives_the_same_tree(
    tmp_path: Path, raw: Path, compress: Callable[[bytes], bytes]
) -> None:
    data = (raw / "run02172.mid").read_bytes()
    packed = tmp_path / "packed.mid"
    packed.write_bytes(bytes(compress(data)))
    (tmp_path / "plain").mkdir()
    assert columns(unpacked(packed, tmp_path)) == columns(
        unpacked(raw / "run02172.mid", tmp_path / "plain")
    )


def test_a_run_in_many_pieces_gives_the_same_outputs(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = unpacked(raw / "run02091.mid", tmp_path / "whole")
    monkeypatch.setattr(alcapana, "PIECE_EVENTS", 7)
    tree = unpacked(raw / "run02091.mid", tmp_path)
    assert columns(tree) == columns(whole)
    for name in ("values_MUPX", "size_JTPX", "event_time", "muon_pt", "muon_eta"):
        assert histogram(tmp_path / "hist.root", name) == histogram(
            whole.with_name("hist.root"), name
        )


def test_histograms_hold_the_muons_of_the_file(
    tmp_path: Path, raw: Path, plan: dict[int, make_raw.Piece]
) -> None:
    unpacked(raw / "run02091.mid", tmp_path)
    stop = len(plan[HZZ_RUN].events)
    px, py = (source(make_raw.HZZ)[f"Muon_{c}"].array(entry_stop=stop) for c in ("Px", "Py"))
    momenta = [
        math.hypot(x, y)
        for xs, ys in zip(px.tolist(), py.tolist(), strict=True)
        for x, y in zip(xs, ys, strict=True)
    ]
    counts, edges = histogram(tmp_path / "hist.root", "muon_pt")
    assert counts == np.histogram(momenta, edges)[0].tolist()
    numbers, _ = histogram(tmp_path / "hist.root", "muon_number")
    assert numbers == np.bincount([len(event) for event in px.tolist()], minlength=10).tolist()


def test_the_odb_is_dumped_as_it_stands_in_the_run(tmp_path: Path, raw: Path) -> None:
    unpacked(raw / "run02172.mid", tmp_path)
    text = (tmp_path / "dump.odb").read_text()
    assert "Run number = INT : 2172\n" in text
    assert "Source file = STRING : [32] uproot-Zmumu.root\n" in text


def test_the_odb_at_the_end_is_taken_if_there_is_none_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "run00001.mid"
    with path.open("wb") as stream:
        midas.write_run(stream, midas.begin_of_run(1, 0, ""), [], midas.end_of_run(1, 0, "[/]\n"))
    unpacked(path, tmp_path)
    assert (tmp_path / "dump.odb").read_text() == "[/]\n"


def test_modules_choose_the_histograms(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tmp_path / "MODULES"
    chosen.write_text(
        "# ours\nmuons/MMuonHisto\n\nFADC/MOctalFADCProcessRaw\nvacuum/MVacuumHisto\n"
    )
    tree = unpacked(raw / "run02172.mid", tmp_path, "-m", str(chosen))
    with uproot.open(tmp_path / "hist.root") as hist:
        assert set(hist.keys(cycle=False)) == {"muon_number", "muon_pt", "muon_eta", "muon_charge"}
    assert set(columns(tree)) == set(alcapana.HEADER_BRANCHES)
    assert capsys.readouterr().err == (
        "alcapana: note: modules that are not known here are left out: "
        "FADC/MOctalFADCProcessRaw, vacuum/MVacuumHisto\n"
    )


def test_banks_of_any_kind_become_branches(tmp_path: Path) -> None:
    banks = (
        midas.Bank.of("0ADC", np.array([1, 2], dtype="u2")),
        midas.Bank.of("time", np.array([np.nan, np.inf, 1e308, -1e308])),
        midas.Bank("TEXT", np.frombuffer(b"hello", "u1"), 12),
        midas.Bank.of("NONE", np.array([], dtype="f4")),
    )
    later = (midas.Bank.of("0ADC", np.array([-3], dtype="i4")),)
    events = [midas.Event(1, 0, 1, 10, banks), midas.Event(2, 0, 2, 11, later)]
    path = tmp_path / "run00001.mid"
    with path.open("wb") as stream:
        midas.write_run(stream, midas.begin_of_run(1, 10, ""), events, midas.end_of_run(1, 20, ""))
    tree = columns(unpacked(path, tmp_path))
    assert tree["_0ADC"] == [[1, 2], [-3]]  # of both types
    assert tree["TEXT"] == [list(b"hello"), []]
    assert tree["NONE"] == [[], []]
    assert tree["time"][0][1:] == [math.inf, 1e308, -1e308]
    counts, _ = histogram(tmp_path / "hist.root", "values__0ADC")
    assert counts == [1, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:5000], "run02172.mid: cut off at byte 5000 in event 26"),
        (
            lambda data: data[: data.rindex(b"\x01\x80MI")],
            "run02172.mid: no end-of-run event: the file is incomplete",
        ),
        (lambda data: b"", "run02172.mid: the file is empty"),
    ],
)
def test_a_bad_run_file_is_one_clear_line(
    tmp_path: Path,
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
    complaint: str,
) -> None:
    bad = tmp_path / "run02172.mid"
    bad.write_bytes(damage((raw / "run02172.mid").read_bytes()))
    outputs = ["-o", str(tmp_path / "hist.root"), "-T", str(tmp_path / "tree.root")]
    assert alcapana.main(["-i", str(bad), *outputs]) == alcapana.INPUT_FAILED
    assert capsys.readouterr().err == f"alcapana: {complaint}\n"


@pytest.mark.parametrize(
    ("option", "path", "code"),
    [
        ("-i", "nowhere/run.mid", alcapana.INPUT_FAILED),
        ("-m", "nowhere/MODULES", alcapana.MODULES_FAILED),
        ("-T", "/dev/full", alcapana.OUTPUT_FAILED),
        ("-D", "nowhere/dump.odb", alcapana.OUTPUT_FAILED),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str], option: str, path: str, code: int
) -> None:
    options = {
        "-i": str(raw / "run02172.mid"),
        "-o": str(tmp_path / "hist.root"),
        "-T": str(tmp_path / "tree.root"),
        option: path,
    }
    assert alcapana.main([word for pair in options.items() for word in pair]) == code
    error = capsys.readouterr().err
    assert error.startswith("alcapana: ")
    assert path in error
    assert error.count("\n") == 1


@needs_genuine_files
@pytest.mark.slow
def test_runs_of_other_experiments_are_unpacked(tmp_path: Path) -> None:
    path = SHARED / "midas" / "run00407sub0000.mid.lz4"
    tree = unpacked(path, tmp_path, "-m", str(SHARED / "alcap" / "MODULES"))
    found = columns(tree)
    expected = [
        [value for bank in event.banks if bank.name == "PMT" for value in bank.values.tolist()]
        for event in midas.read_events(path)
        if event.is_physics
    ]
    assert found["PMT"] == expected
    out = analysed(tree, (EXAMPLES / "production.cfg").read_text())
    with uproot.open(out) as root:
        counts = {row["bank"]: row["values"] for row in root["counts"].arrays().tolist()}
    assert counts["PMT"] == sum(len(row) for row in found["PMT"]) > 0


# --------------------------------------------------------------------------- rootana


def test_the_mass_is_that_of_the_file(
    tmp_path: Path, raw: Path, plan: dict[int, make_raw.Piece]
) -> None:
    out = analysed(
        unpacked(raw / "run02172.mid", tmp_path), "[ MODULES ]\nmass = PlotMass(40, 70, 110)\n"
    )
    arrays = source(make_raw.ZMUMU).arrays(library="np")
    pairs = (arrays["Type"] == "GG") & (arrays["Q1"] * arrays["Q2"] < 0)
    last = np.flatnonzero(arrays["Type"] == "GG")[plan[ZMUMU_RUN].first]
    masses = arrays["M"][last:][pairs[last:]]
    counts, edges = histogram(out, "mass")
    assert counts == np.histogram(masses, edges)[0].tolist()
    assert sum(counts) > 20


@pytest.mark.parametrize("min_pt", [0, 30])
def test_the_mass_is_made_of_the_two_fastest_muons(
    tmp_path: Path, raw: Path, plan: dict[int, make_raw.Piece], min_pt: float
) -> None:
    cfg = f"[ MODULES ]\nmass = PlotMass(30, 0, 150)\n[ mass ]\nmin_pt = {min_pt}\n"
    out = analysed(unpacked(raw / "run02091.mid", tmp_path), cfg)
    masses = mass_of_pairs(range(len(plan[HZZ_RUN].events)), min_pt)
    counts, edges = histogram(out, "mass")
    assert counts == np.histogram(masses, edges)[0].tolist()


def test_each_plot_of_the_shipped_modules_file_is_filled(tmp_path: Path, raw: Path) -> None:
    out = analysed(
        unpacked(raw / "run02091.mid", tmp_path), (EXAMPLES / "production.cfg").read_text()
    )
    for name in ("mass", "muon_pt", "muon_eta", "muons"):
        counts, _ = histogram(out, name)
        assert sum(counts) > 0
    with uproot.open(out) as root:
        assert root["run"].arrays().tolist() == [{"run": 2091, "events": 44}]
        counted = {row["bank"]: row for row in root["counts"].arrays().tolist()}
        assert root["mass"].axis().member("fTitle") == "dimuon mass (GeV)"
    assert counted["METX"] == {"bank": "METX", "events": 44, "values": 44}


def calibration_csv(path: Path, run: int) -> None:
    path.write_text(f"run,factor\n{run},2.0\n")


def calibration_database(path: Path, run: int) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE calibration (run INTEGER, factor REAL)")
        db.execute("INSERT INTO calibration VALUES (?, 2.0)", (run,))
    db.close()


@pytest.mark.parametrize("write", [calibration_csv, calibration_database])
def test_the_calibration_scales_the_mass(
    tmp_path: Path, raw: Path, write: Callable[[Path, int], None]
) -> None:
    tree = unpacked(raw / "run02172.mid", tmp_path)
    plain, _ = histogram(analysed(tree, "[ MODULES ]\nmass = PlotMass(60, 0, 120)\n"), "mass")
    write(tmp_path / "calibration", 2172)
    out = analysed(
        tree,
        "[ MODULES ]\nmass = PlotMass(60, 0, 240)\n",
        *("-c", "-d", str(tmp_path / "calibration")),
    )
    scaled, _ = histogram(out, "mass")
    assert scaled == plain


def refused(tree: Path, cfg: str, *options: str) -> int:
    modules_file = tree.with_name("modules.cfg")
    modules_file.write_text(cfg)
    arguments = ["-i", tree, "-o", tree.with_name("out.root"), "-m", modules_file]
    return rootana.main([*map(str, arguments), *options])


@pytest.mark.parametrize(
    ("cfg", "complaint"),
    [
        ("[ MODULES ]\ntap = PlotTAP_Energy(200, 0, 20000)\n", "unknown module PlotTAP_Energy"),
        ("[ MODULES ]\nmass = PlotMass(60)\n", "mass: the arguments of PlotMass are"),
        ("[ MODULES ]\nmass = PlotMass(60, 120, 0)\n", "mass: the arguments of PlotMass are"),
        ("[ MODULES ]\nPlotPt\n[ PlotPt ]\nmax_pt = 3\n", "[ PlotPt ]: unknown option max_pt"),
        ("[ MODULES ]\nPlotPt\nPlotPt\n", "line 3: there is another module named PlotPt"),
        ("[ MODULES ]\nmass == PlotMass\n", "line 2: this is no module: mass == PlotMass"),
        ("[ MODULES \nPlotPt\n", "line 1: this is no section: [ MODULES"),
        ("[ mass ]\nmin_pt = 3\n", "there is no section [ MODULES ] with a module in it"),
    ],
)
def test_a_modules_file_with_a_mistake_is_refused(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str], cfg: str, complaint: str
) -> None:
    tree = unpacked(raw / "run02172.mid", tmp_path)
    assert refused(tree, cfg) == rootana.MODULES_FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"rootana: modules file {tmp_path / 'modules.cfg'}: {complaint}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"run,factor\n1,2.0\n", "no factor for run 2172"),
        (b"run,factor\n2172\n", "not a table of run and factor"),
        (b"no table", "not a table of run and factor"),
        (b"SQLite format 3\0", "not a table of run and factor"),
        (None, "No such file or directory"),
    ],
)
def test_a_missing_calibration_is_refused(
    tmp_path: Path,
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    complaint: str,
) -> None:
    tree = unpacked(raw / "run02172.mid", tmp_path)
    path = tmp_path / "calibration"
    if content is not None:
        path.write_bytes(content)
    code = refused(tree, "[ MODULES ]\nPlotPt\n", "-c", "-d", str(path))
    assert code == rootana.CALIBRATION_FAILED
    assert f"rootana: calibration {path}: {complaint}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda data: data[:3000], lambda data: data[:-9000], lambda _: b"x"]
)
def test_a_bad_tree_is_one_clear_line(
    tmp_path: Path,
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
) -> None:
    tree = unpacked(raw / "run02172.mid", tmp_path)
    tree.write_bytes(damage(tree.read_bytes()))
    assert refused(tree, "[ MODULES ]\nPlotPt\n") == rootana.INPUT_FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"rootana: {tree}: not a readable tree of alcapana: ")
    assert error.count("\n") == 1


def test_a_run_without_events_gives_empty_outputs(tmp_path: Path) -> None:
    path = tmp_path / "run00001.mid"
    with path.open("wb") as stream:
        midas.write_run(stream, midas.begin_of_run(1, 10, ""), [], midas.end_of_run(1, 20, ""))
    out = analysed(unpacked(path, tmp_path), (EXAMPLES / "production.cfg").read_text())
    assert sum(histogram(out, "mass")[0]) == 0


@needs_genuine_files
@pytest.mark.parametrize("name", ["production.cfg", "R15b_tme-tree.cfg"])
def test_genuine_modules_files_are_understood(name: str) -> None:
    orders = modules.parse_sections((SHARED / "alcap" / name).read_text())
    by_name = {order.name: order for order in orders}
    assert by_name["analyse_pulses"].module == "MakeAnalysedPulses"
    if name == "R15b_tme-tree.cfg":
        assert by_name["PlotTAP_Energy"].arguments == ("200", "0", "20000")
        assert by_name["muon_events"].options["muon_channels"].split() == [
            *("SiT-1", "SiT-2", "SiT-3", "SiT-4")
        ]


# --------------------------------------------------------------------------- as jobs run them


def job(command: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program, found as a job finds it: by way of the environment script."""
    script = f'set -eu; . "{EXAMPLES}/thisdaq.sh"; exec {command} "$@"'
    return subprocess.run(
        ["bash", "-c", script, "job", *arguments],
        env={"PATH": os.defpath, "PRODUCTION_EXAMPLE_PYTHON": sys.executable, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_jobs_find_the_programs_by_way_of_the_environment_script(tmp_path: Path, raw: Path) -> None:
    tree, out = str(tmp_path / "tree.root"), str(tmp_path / "out.root")
    first = job(
        *("alcapana", "-i", str(raw / "run02172.mid"), "-T", tree),
        *("-o", str(tmp_path / "hist.root"), "-D", str(tmp_path / "dump.odb")),
    )
    assert (first.returncode, first.stderr) == (0, "")
    second = job("rootana", "-i", tree, "-o", out, "-m", str(EXAMPLES / "production.cfg"))
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == "run 2172: 43 events, 5 modules\n"
    assert job("printenv", "DAQdir").stdout.strip() == str(EXAMPLES)


@pytest.mark.slow
def test_a_crash_on_request_is_a_real_one(tmp_path: Path, raw: Path) -> None:
    outputs = ("-o", str(tmp_path / "hist.root"), "-T", str(tmp_path / "tree.root"))
    for run, code in ((2091, 0), (2172, -signal.SIGSEGV)):
        run_file = str(raw / f"run{run:05d}.mid")
        done = job("alcapana", "-i", run_file, *outputs, ALCAPANA_CRASH_RUNS="2095,2172")
        assert done.returncode == code


# --------------------------------------------------------------------------- the picture


def database_of(outputs: Sequence[tuple[int, str, Path]], path: Path) -> Path:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE rootana_v1 (run INTEGER, status TEXT, out TEXT)")
        rows = [(run, status, str(out)) for run, status, out in outputs]
        db.executemany("INSERT INTO rootana_v1 VALUES (?, ?, ?)", rows)
    db.close()
    return path


def test_the_picture_adds_up_the_finished_runs(tmp_path: Path, raw: Path) -> None:
    outputs = []
    for run in (HZZ_RUN, ZMUMU_RUN):
        directory = tmp_path / str(run)
        directory.mkdir()
        tree = unpacked(raw / f"run{run:05d}.mid", directory)
        outputs.append(analysed(tree, "[ MODULES ]\nmass = PlotMass(60, 0, 120)\n"))
    nowhere = tmp_path / "unfinished.root"
    database = database_of(
        [(2172, "F", outputs[1]), (2091, "F", outputs[0]), (2092, "R", nowhere)], tmp_path / "p.db"
    )
    assert picture.finished_outputs(database, "rootana_v1") == outputs
    counts, _ = picture.add_up(outputs, "mass")
    each = [histogram(out, "mass")[0] for out in outputs]
    assert counts.tolist() == [a + b for a, b in zip(*each, strict=True)]
    png = tmp_path / "mass.png"
    assert picture.main(["--database", str(database), "--output", str(png)]) == 0
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_picture_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = database_of([], tmp_path / "p.db")
    assert picture.main(["--database", str(database), "--table", "rootana_v1"]) == 1
    assert picture.main(["--database", str(database), "--table", "rootana_v9"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "picture: rootana_v1: no run is finished",
        "picture: no such table: rootana_v9",
    ]
