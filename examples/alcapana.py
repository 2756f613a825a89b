"""The example's first program: unpacks a MIDAS run file into a tree and histograms.

It stands in for AlCap's program of the same name and is called in the same way.  It knows no
detector: whatever banks a file has become branches of the tree, and the modules file says which
histograms are made of them.  The file is read twice, first to see what is in it, then to unpack
it in pieces, so that no run is too large for the memory.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from histogram import Histogram
from midas import BEGIN_OF_RUN, END_OF_RUN, Array, Event, MidasError, read_events
from modules import parse_list

MODULES_FAILED, INPUT_FAILED, OUTPUT_FAILED = 3, 4, 5  # exit codes; 2 is for wrong options

PIECE_EVENTS, PIECE_BYTES = 1000, 16_000_000
LARGEST = 1e300  # values beyond are garbage and would spoil the axis
HEADER_BRANCHES = {
    "event_id": "uint16",
    "trigger_mask": "uint16",
    "serial_number": "uint32",
    "time_stamp": "uint32",
}
MUON_BANKS = ("MUPX", "MUPY", "MUPZ", "MUEN", "MUCH")


# --------------------------------------------------------------------------- the first reading


@dataclass
class Content:
    """All that the file holds under one bank's name."""

    dtype: np.dtype[np.generic]
    events: int = 0
    values: int = 0
    most: int = 0  # values in one event
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: Array) -> None:
        """Counts one bank in."""
        self.dtype = np.result_type(self.dtype, values.dtype)
        self.events += 1
        self.values += len(values)
        self.most = max(self.most, len(values))
        finite = values[np.isfinite(values)]
        if len(finite):
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))


@dataclass
class Survey:
    """What a run file contains."""

    run: int = 0
    start: int = 0  # Unix seconds
    stop: int = 0
    odb: bytes = b""
    events: int = 0
    banks: dict[str, Content] = field(default_factory=dict)  # by the name of their branch


def survey_run(path: Path) -> Survey:
    """Reads the whole file once; MidasError if it is damaged or incomplete."""
    survey = Survey()
    for event in read_events(path):
        if event.id == BEGIN_OF_RUN:
            survey.run, survey.start, survey.odb = event.serial, event.time, event.text
        elif event.id == END_OF_RUN:
            survey.stop = event.time
            survey.odb = survey.odb or event.text
        elif event.is_physics:
            survey.events += 1
            for bank in event.banks:
                name = branch_name(bank.name)
                content = survey.banks.setdefault(name, Content(bank.values.dtype))
                content.add(bank.values)
    return survey


def branch_name(bank: str) -> str:
    """A bank's name as ROOT likes it: letters, digits and _, no digit in front."""
    name = re.sub(r"\W", "_", bank, flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() or not name else name


# --------------------------------------------------------------------------- the second reading


@dataclass(frozen=True)
class Column:
    """One branch for some events: how many values each event has, and all values in a row."""

    counts: Array
    values: Array


def pieces(events: Iterable[Event]) -> Iterator[list[Event]]:
    """The physics events in portions that fit into the memory."""
    piece: list[Event] = []
    size = 0
    for event in events:
        if event.is_physics:
            piece.append(event)
            size += sum(bank.values.nbytes for bank in event.banks)
        if len(piece) == PIECE_EVENTS or size > PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def unpack(events: Sequence[Event], survey: Survey) -> dict[str, Column]:
    """The banks of these events as columns; events without a bank have no values in its column."""
    counts = {name: np.zeros(len(events), dtype=np.int64) for name in survey.banks}
    values: dict[str, list[Array]] = {name: [] for name in survey.banks}
    for number, event in enumerate(events):
        for bank in event.banks:
            name = branch_name(bank.name)
            counts[name][number] += len(bank.values)
            values[name].append(bank.values)
    return {
        name: Column(counts[name], np.concatenate([np.empty(0, content.dtype), *values[name]]))
        for name, content in survey.banks.items()
    }


# --------------------------------------------------------------------------- modules


Fill = Callable[[Sequence[Event], dict[str, Column]], None]


def bank_values(survey: Survey) -> tuple[list[Histogram], Fill]:
    """The values of each bank, from the lowest to the highest of the run."""
    histograms = {}
    for name, content in survey.banks.items():
        low, high = max(content.low, -LARGEST), min(content.high, LARGEST)
        if low > high:  # nothing but empty banks
            low = high = 0.0
        whole = content.dtype.kind in "iu" or low == high
        bins = int(min(high - low + 1, 100)) if whole else 100
        low, high = (low - 0.5, high + 0.5) if whole else (low, float(np.nextafter(high, np.inf)))
        title = f"values of bank {name}"
        histograms[name] = Histogram(f"values_{name}", title, name, bins, low, high)

    def fill(_: Sequence[Event], columns: dict[str, Column]) -> None:
        for name, column in columns.items():
            histograms[name].fill(column.values)

    return list(histograms.values()), fill


def bank_sizes(survey: Survey) -> tuple[list[Histogram], Fill]:
    """How many values of each bank an event has."""
    histograms = {
        name: Histogram(
            f"size_{name}",
            f"size of bank {name}",
            f"values of {name} in an event",
            min(content.most + 1, 100),
            -0.5,
            content.most + 0.5,
        )
        for name, content in survey.banks.items()
    }

    def fill(_: Sequence[Event], columns: dict[str, Column]) -> None:
        for name, column in columns.items():
            histograms[name].fill(column.counts)

    return list(histograms.values()), fill


def event_rate(survey: Survey) -> tuple[list[Histogram], Fill]:
    """When the events came."""
    title = f"events of run {survey.run}"
    duration = max(survey.stop - survey.start, 0) + 1
    rate = Histogram("event_time", title, "seconds since the run began", 100, 0, duration)

    def fill(events: Sequence[Event], _: dict[str, Column]) -> None:
        rate.fill(np.array([event.time - survey.start for event in events]))

    return [rate], fill


def muon_histograms(survey: Survey) -> tuple[list[Histogram], Fill]:
    """Muons, if the run has any: how many in an event, their momenta, directions and charges."""
    if not all(name in survey.banks for name in MUON_BANKS):
        return [], lambda _events, _columns: None
    number = Histogram("muon_number", "muons", "muons in an event", 10, -0.5, 9.5)
    pt = Histogram("muon_pt", "muons", "transverse momentum (GeV)", 100, 0, 200)
    eta = Histogram("muon_eta", "muons", "pseudorapidity", 60, -3, 3)
    charge = Histogram("muon_charge", "muons", "charge (e)", 3, -1.5, 1.5)

    def fill(_: Sequence[Event], columns: dict[str, Column]) -> None:
        px, py, pz = (columns[name].values.astype(float) for name in MUON_BANKS[:3])
        transverse = np.hypot(px, py)
        number.fill(columns["MUPX"].counts)
        pt.fill(transverse)
        with np.errstate(divide="ignore", invalid="ignore"):  # straight along the beam
            eta.fill(np.arcsinh(pz / transverse))
        charge.fill(columns["MUCH"].values)

    return [number, pt, eta, charge], fill


TREE_OUTPUT = "common/MTreeOutput"  # without it the tree holds the headers of the events only
MODULES: dict[str, Callable[[Survey], tuple[list[Histogram], Fill]]] = {
    "banks/MBankValues": bank_values,
    "banks/MBankSizes": bank_sizes,
    "common/MEventRate": event_rate,
    "muons/MMuonHisto": muon_histograms,
}


# --------------------------------------------------------------------------- the program


def process(path: Path, survey: Survey, modules: Sequence[str], hist: Path, tree: Path) -> None:
    """Unpacks the run into ``tree`` and ``hist``."""
    made = [MODULES[name](survey) for name in modules if name in MODULES]
    with_banks = survey.banks if TREE_OUTPUT in modules else {}
    types = {name: f"var * {content.dtype.name}" for name, content in with_banks.items()}
    with uproot.recreate(tree) as file:
        about = {"run": survey.run, "start": survey.start, "stop": survey.stop}
        file.mktree("run", dict.fromkeys(about, "int64")).extend(
            {name: np.array([value]) for name, value in about.items()}
        )
        events = file.mktree(
            "events", HEADER_BRANCHES | types, counter_name=lambda name: f"{name}_size"
        )
        for piece in pieces(read_events(path)):
            columns = unpack(piece, survey)
            headers = np.array([(e.id, e.mask, e.serial, e.time) for e in piece]).T
            data = {
                name: column.astype(HEADER_BRANCHES[name])
                for name, column in zip(HEADER_BRANCHES, headers, strict=True)
            }
            for name in with_banks:
                data[name] = ak.unflatten(columns[name].values, columns[name].counts)
            events.extend(data)
            for _, fill in made:
                fill(piece, columns)
        exercise(survey.run)
    with uproot.recreate(hist) as file:
        for histograms, _ in made:
            for histogram in histograms:
                file[histogram.name] = histogram.root()


def exercise(run: int) -> None:
    """Takes longer, or crashes, where the environment asks for it: see --help."""
    time.sleep(float(os.environ.get("ALCAPANA_SLEEP") or 0))
    if str(run) in re.split(r"[,\s]+", os.environ.get("ALCAPANA_CRASH_RUNS", "")):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGSEGV)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="alcapana",
        description="Unpack a MIDAS run file into a tree and histograms.",
        epilog="To exercise the production manager: ALCAPANA_SLEEP=SECONDS in the environment "
        'makes each run last longer, ALCAPANA_CRASH_RUNS="2095,2096" makes these runs crash.',
    )
    parser.add_argument("-i", dest="input", type=Path, required=True, help="MIDAS run file")
    parser.add_argument("-o", dest="hist", type=Path, required=True, help="histograms, a ROOT file")
    parser.add_argument("-T", dest="tree", type=Path, required=True, help="tree, a ROOT file")
    parser.add_argument("-D", dest="odb", type=Path, help="dump of the online database")
    default = Path(__file__).resolve().parent / "MODULES"
    parser.add_argument("-m", dest="modules", type=Path, default=default, help="modules file")
    options = parser.parse_args(argv)

    def failed(code: int, what: object) -> int:
        print(f"alcapana: {what}", file=sys.stderr)
        return code

    try:
        modules = list(dict.fromkeys(parse_list(options.modules.read_text(errors="replace"))))
    except OSError as error:
        return failed(MODULES_FAILED, f"modules file {options.modules}: {error.strerror}")
    if unknown := [name for name in modules if name not in (*MODULES, TREE_OUTPUT)]:
        failed(0, f"note: modules that are not known here are left out: {', '.join(unknown)}")
    try:
        survey = survey_run(options.input)
    except MidasError as error:
        return failed(INPUT_FAILED, error)
    except OSError as error:
        return failed(INPUT_FAILED, f"{options.input}: {error.strerror}")
    try:
        if options.odb:
            options.odb.write_bytes(survey.odb)
        process(options.input, survey, modules, options.hist, options.tree)
    except MidasError as error:
        return failed(INPUT_FAILED, error)
    except OSError as error:
        where = error.filename or f"{options.tree}, {options.hist}"
        return failed(OUTPUT_FAILED, f"output {where}: {error.strerror or error}")
    print(f"run {survey.run}: {survey.events} events, {len(survey.banks)} kinds of banks")
    return 0
