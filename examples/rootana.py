"""The example's second program: fills the histograms that a modules file asks for from a tree.

It stands in for AlCap's program of the same name and is called in the same way.  Each module of
``[ MODULES ]`` makes one histogram, or counts the banks; see MODULES at the end of this text for
those that exist.  The tree is read in pieces, so that no run is too large for the memory.
"""

from __future__ import annotations

import argparse
import csv
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import awkward as ak
import numpy as np
import uproot
from histogram import Histogram
from midas import Array
from modules import ModuleOrder, ModulesError, parse_sections

MODULES_FAILED, INPUT_FAILED, OUTPUT_FAILED, CALIBRATION_FAILED = 3, 4, 5, 6  # exit codes

PIECE = "16 MB"
MUON_BRANCHES = {"px": "MUPX", "py": "MUPY", "pz": "MUPZ", "E": "MUEN", "charge": "MUCH"}


class RootanaError(Exception):
    """The end of this run: the text says why, the code is what the program exits with."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


# --------------------------------------------------------------------------- muons


def pt(muons: Any) -> Any:
    """Transverse momentum."""
    return np.hypot(muons.px, muons.py)


def eta(muons: Any) -> Any:
    """Pseudorapidity."""
    return np.arcsinh(muons.pz / pt(muons))


def mass(muons: Any) -> Any:
    """The mass of the two muons of opposite charge with the largest transverse momenta."""
    ordered = muons[ak.argsort(pt(muons), axis=1, ascending=False)]
    ordered = ordered[ak.num(ordered) >= 2]
    first, second = ordered[:, 0], ordered[:, 1]
    opposite = first.charge * second.charge < 0
    first, second = first[opposite], second[opposite]
    momentum = [first[axis] + second[axis] for axis in ("px", "py", "pz")]
    square = (first.E + second.E) ** 2 - sum(component**2 for component in momentum)
    return np.sqrt(np.maximum(square, 0))


def number(muons: Any) -> Any:
    """How many muons each event has."""
    return ak.num(muons)


# --------------------------------------------------------------------------- modules


class Module(Protocol):
    """What rootana does with each piece of the tree, and in the end with the output file."""

    @property
    def branches(self) -> Sequence[str]:
        """What it wants to see of the tree."""

    def fill(self, piece: Any) -> None:
        """Takes in some events."""

    def write(self, file: uproot.WritableDirectory) -> None:
        """Puts the result into the output file."""


@dataclass(frozen=True)
class MuonPlot:
    """A histogram of a quantity of muons; ``min_pt`` in its section leaves slow muons out."""

    histogram: Histogram
    quantity: Callable[[Any], Any]
    min_pt: float
    factor: float  # of the calibration
    branches: Sequence[str]

    def fill(self, piece: Any) -> None:
        """Fills the quantity of each muon, pair or event; nothing if the run has no muons."""
        if not self.branches:
            return
        columns = {name: piece[branch] for name, branch in MUON_BRANCHES.items()}
        for name in ("px", "py", "pz", "E"):
            columns[name] = ak.values_astype(columns[name], "float64") * self.factor
        muons = ak.zip(columns)
        muons = muons[pt(muons) >= self.min_pt]
        values = self.quantity(muons)
        self.histogram.fill(ak.to_numpy(ak.flatten(values, axis=None)))

    def write(self, file: uproot.WritableDirectory) -> None:
        """A TH1D under the name of the module."""
        file[self.histogram.name] = self.histogram.root()


class BankCounter:
    """How many events have values of a bank, and how many values there are."""

    def __init__(self, name: str, banks: Sequence[str]) -> None:
        self.name = name
        self.banks = banks
        self.branches: Sequence[str] = [f"{bank}_size" for bank in banks]
        self.events = np.zeros(len(banks), dtype=np.int64)
        self.values = np.zeros(len(banks), dtype=np.int64)

    def fill(self, piece: Any) -> None:
        """Counts some events in."""
        for index, branch in enumerate(self.branches):
            sizes: Array = ak.to_numpy(piece[branch])
            self.events[index] += np.count_nonzero(sizes)
            self.values[index] += sizes.sum()

    def write(self, file: uproot.WritableDirectory) -> None:
        """A tree with one entry a bank."""
        tree = file.mktree(self.name, {"bank": "string", "events": "int64", "values": "int64"})
        if self.banks:
            tree.extend({"bank": self.banks, "events": self.events, "values": self.values})


PLOTS: dict[str, tuple[Callable[[Any], Any], str, str, tuple[int, float, float]]] = {
    "PlotMass": (mass, "pairs of muons", "dimuon mass (GeV)", (60, 0, 120)),
    "PlotPt": (pt, "muons", "transverse momentum (GeV)", (100, 0, 200)),
    "PlotEta": (eta, "muons", "pseudorapidity", (60, -3, 3)),
    "PlotMultiplicity": (number, "events", "muons in an event", (10, -0.5, 9.5)),
}
MODULES = (*PLOTS, "CountBanks")


def make_module(order: ModuleOrder, branches: Sequence[str], factor: float) -> Module:
    """The module that a line of the modules file asks for; ModulesError if that makes no sense."""
    if order.module == "CountBanks":
        banks = [name.removesuffix("_size") for name in branches if name.endswith("_size")]
        return BankCounter(order.name, banks)
    if order.module not in PLOTS:
        raise ModulesError(f"unknown module {order.module}; known are {', '.join(MODULES)}")
    if unknown := set(order.options) - {"min_pt"}:
        raise ModulesError(f"[ {order.name} ]: unknown option {min(unknown)}; known is min_pt")
    quantity, title, axis, (bins, low, high) = PLOTS[order.module]
    try:
        min_pt = float(order.options.get("min_pt", 0))
        if order.arguments:
            bins_text, low_text, high_text = order.arguments
            bins, low, high = int(bins_text), float(low_text), float(high_text)
    except ValueError:
        bins = 0
    if bins < 1 or not low < high:
        raise ModulesError(
            f"{order.name}: the arguments of {order.module} are (bins, low, high), min_pt a number"
        )
    has_muons = set(MUON_BRANCHES.values()) <= set(branches)
    histogram = Histogram(order.name, title, axis, bins, low, high)
    needed = tuple(MUON_BRANCHES.values()) if has_muons else ()
    return MuonPlot(histogram, quantity, min_pt, factor, needed)


# --------------------------------------------------------------------------- calibration


def calibration_factor(path: Path, run: int) -> float:
    """What the momenta of a run are multiplied with.

    ``path`` is an SQLite file with a table calibration(run, factor), or a CSV file with columns
    run and factor.  RootanaError if it cannot be read or does not know the run.
    """
    try:
        with path.open("rb") as file:
            is_database = file.read(15) == b"SQLite format 3"
        factors = (_factors_of_database if is_database else _factors_of_csv)(path)
        return factors[run]
    except OSError as error:
        what = error.strerror or str(error)
    except KeyError:
        what = f"no factor for run {run}"
    except (sqlite3.Error, TypeError, ValueError) as error:
        what = f"not a table of run and factor: {error}"
    raise RootanaError(CALIBRATION_FAILED, f"calibration {path}: {what}")


def _factors_of_database(path: Path) -> dict[int, float]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT run, factor FROM calibration")
        return {int(run): float(factor) for run, factor in rows}


def _factors_of_csv(path: Path) -> dict[int, float]:
    with path.open(newline="") as file:
        rows = csv.reader(file)
        if next(rows, None) != ["run", "factor"]:
            raise ValueError("the first line is not run,factor")
        return {int(run): float(factor) for run, factor in rows}


# --------------------------------------------------------------------------- the program


def analyse(tree: uproot.TTree, modules: Sequence[Module]) -> None:
    """Shows each module the whole tree, piece by piece."""
    branches = sorted({branch for module in modules for branch in module.branches})
    if branches and tree.num_entries:
        for piece in tree.iterate(branches, step_size=PIECE):
            for module in modules:
                module.fill(piece)


def write_output(path: Path, run: int, events: int, modules: Sequence[Module]) -> None:
    """The results of all modules, and a tree ``run`` that says where they come from."""
    with uproot.recreate(path) as file:
        file.mktree("run", {"run": "int64", "events": "int64"}).extend(
            {"run": np.array([run]), "events": np.array([events])}
        )
        for module in modules:
            module.write(file)


def process(tree: Path, orders: Sequence[ModuleOrder], calibration: Path | None, out: Path) -> None:
    """Fills what ``orders`` ask for from the tree into the output file."""
    try:
        with uproot.open(tree) as file:
            events = file["events"]
            run = int(file["run"]["run"].array()[0])
            factor = calibration_factor(calibration, run) if calibration else 1.0
            modules = [make_module(order, events.keys(), factor) for order in orders]
            if not set(MUON_BRANCHES.values()) <= set(events.keys()):
                note(f"{tree.name} has no muons, their histograms stay empty")
            analyse(events, modules)
            count = events.num_entries
    except (RootanaError, ModulesError):
        raise
    except Exception as error:  # noqa: BLE001  a damaged file makes uproot raise just anything
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        what = what.splitlines()[0]
        raise RootanaError(
            INPUT_FAILED, f"{tree}: not a readable tree of alcapana: {what}"
        ) from None
    try:
        write_output(out, run, count, modules)
    except OSError as error:
        raise RootanaError(OUTPUT_FAILED, f"output {out}: {error.strerror or error}") from None
    print(f"run {run}: {count} events, {len(modules)} modules")


def note(text: str) -> None:
    """Tells the user something that is no failure."""
    print(f"rootana: note: {text}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="rootana", description="Fill histograms from a tree of alcapana."
    )
    parser.add_argument("-i", dest="tree", type=Path, required=True, help="tree of alcapana")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="output, a ROOT file")
    parser.add_argument("-m", dest="modules", type=Path, required=True, help="modules file")
    parser.add_argument("-c", dest="calibrate", action="store_true", help="calibrate the momenta")
    parser.add_argument("-d", dest="calibration", type=Path, help="calibration, SQLite or CSV file")
    options = parser.parse_args(argv)
    if options.calibrate and not options.calibration:
        note("-c without -d FILE: the momenta stay as they are")
    try:
        text = options.modules.read_text(errors="replace")
    except OSError as error:
        print(f"rootana: modules file {options.modules}: {error.strerror}", file=sys.stderr)
        return MODULES_FAILED
    try:
        calibration = options.calibration if options.calibrate else None
        process(options.tree, parse_sections(text), calibration, options.out)
    except ModulesError as error:
        print(f"rootana: modules file {options.modules}: {error}", file=sys.stderr)
        return MODULES_FAILED
    except RootanaError as error:
        print(f"rootana: {error}", file=sys.stderr)
        return error.code
    return 0
