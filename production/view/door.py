"""The door by which a display asks for things: the commands that people type.

Each runs in a process of its own, beside whatever the display belongs to, so that neither the
display nor a manager waits for it, and so that there is nothing that only the display can do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import production
from production import commands
from production.errors import CommandError, ProductionError
from production.view.choices import Offers

T = TypeVar("T")

TIMEOUT = 300.0  # seconds that a command may take
FIRST_LOOK = 3.0  # seconds in which a manager that cannot start says so


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    done: bool
    lines: tuple[str, ...]


class Door:
    """Runs ``production COMMAND`` on one database."""

    def __init__(
        self,
        database: Path,
        config: Path | None = None,
        recipes: Callable[[], Mapping[str, str | None]] = dict,
    ) -> None:
        self._database = database
        self._config = config
        self._recipes = recipes  # each with the type that it is based on

    def ask(self, words: Sequence[str], then: Callable[[Answer], None]) -> None:
        """Run the command beside us; ``then`` gets the answer, in a thread of its own."""
        self._beside(lambda: self._ask(words), then)

    def begin(self, words: Sequence[str], then: Callable[[Answer], None]) -> None:
        """Start a manager that goes on by itself; ``then`` is told where its messages are."""
        self._beside(lambda: self._begin(words), then)

    def offers(self, then: Callable[[Offers | Answer], None]) -> None:
        """Look up what a production can be started with; ``then`` gets that, or what is wrong."""

        def look() -> Offers | Answer:
            try:
                productions = self._column(("status",), "production")
                datasets = self._column(("datasets", "list"), "dataset")
                return Offers(self._recipes(), productions, datasets)
            except (ProductionError, OSError) as error:
                return Answer(False, (str(error),))

        self._beside(look, then)

    @staticmethod
    def _beside(work: Callable[[], T], then: Callable[[T], None]) -> None:
        threading.Thread(target=lambda: then(work()), name="door", daemon=True).start()

    def _argv(self, words: Sequence[str]) -> list[str]:
        argv = [sys.executable, "-m", "production", *words, f"--database={self._database}"]
        if words[0] == "run" and self._config is not None:
            argv.append(f"--config={self._config}")
        return argv

    def _column(self, words: Sequence[str], column: str) -> list[str]:
        said = commands.run(
            self._argv((*words, "--output=json")), timeout=TIMEOUT, variables=_variables()
        )
        return [str(row[column]) for row in json.loads(said.stdout)]

    def _ask(self, words: Sequence[str]) -> Answer:
        try:
            said = commands.run(
                self._argv(words), timeout=TIMEOUT, accept=range(256), variables=_variables()
            )
        except CommandError as error:
            return Answer(False, (str(error),))
        lines = (said.stdout + said.stderr).splitlines()
        return Answer(said.code == 0, tuple(lines))

    def _begin(self, words: Sequence[str]) -> Answer:
        """Its messages go into a file, for there is no terminal that it could have for itself."""
        directory = self._database.parent / "log"
        now = time.strftime("%Y%m%d-%H%M%S")
        path = directory / f"manager.{now}.{os.getpid()}.{time.monotonic_ns() % 1000:03}.out"
        try:
            directory.mkdir(exist_ok=True)
            with path.open("xb") as file:
                process = subprocess.Popen(
                    self._argv(words),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **_variables()},
                    start_new_session=True,
                )
        except OSError as error:
            text = f"{error.filename}: {error.strerror}: no manager was started"
            return Answer(False, (text,))
        try:
            code = process.wait(FIRST_LOOK)
        except subprocess.TimeoutExpired:
            text = f"Started a manager, process {process.pid}; its messages are in {path}"
            return Answer(True, (text,))
        last = path.read_text(errors="replace").splitlines()[-1:]
        return Answer(code == 0, (*last, f"The manager has ended already; see {path}"))


def _variables() -> dict[str, str]:
    """So that the same program runs, wherever it was started from."""
    ours = str(Path(production.__file__).parent.parent)
    others = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{ours}{os.pathsep}{others}" if others else ours}
