"""A program that shows a display: ``display_feeder.py SCENARIO``, on the terminal it is run in.

Between two steps it goes on feeding snapshots until the test creates a file.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from production.errors import DisplayUnavailable
from production.model import Production, Status, Usage
from production.view import display, layout, screen
from production.view.base import ManagerLine, RunLine, Snapshot
from production.view.display import Display
from production.view.door import Door
from production.view.layout import Picture, Scene

GB = 10**9
LOG = Path("alcapana.run02088.out")
PRODUCTION = Production(1, "alcapana", 4, "v7.1_calib", "2014-05-01", None, None)
COUNTS = {
    Status.NEW: 120,
    Status.CLAIMED: 5,
    Status.RUNNING: 10,
    Status.FINISHED: 300,
    Status.ERROR: 2,
}
LINES = (
    RunLine(2100, "claimed", 7509.0, detail="waiting for tape", dataset="Al100", attempt=1),
    RunLine(2091, "downloading", 12.0, 45 * GB // 100, GB, "", "SiR2", 1, "anna"),
    RunLine(2095, "ready", 61.0, GB, GB, "waiting for a job", "SiR2", 2, "anna", "no reply"),
    RunLine(2089, "ending", 1.0, GB, GB, "its files are filed", "SiR2", 1, "anna"),
    RunLine(2094, "submitting", 3.0, GB, GB, "", "SiR2", 1, "anna"),
    RunLine(2096, "queued", 95.0, GB, GB, "job 4712", "SiR2", 1, "bob"),
    RunLine(2090, "running", 750.0, GB, GB, "on node17, job 4711", "SiR2", 1, "bob"),
    RunLine(2088, "running", 4000.0, GB, GB, "on node3, job 4709", "Al100", 1, "anna", "", (LOG,)),
    RunLine(2077, "error", 86400.0, 0, None, "bank ADC0 is damaged", "Al100", 3, "anna"),
)
MANAGERS = (ManagerLine(3, "anna", "lxplus7", 6), ManagerLine(4, "bob", "lxplus9", 2))


def snapshot(
    lines: tuple[RunLine, ...] = LINES, used: int | None = 45, manager: int | None = 3
) -> Snapshot:
    """A manager in the middle of its work."""
    usage = None if used is None else Usage(used, 100, "test")
    return Snapshot(PRODUCTION, COUNTS, usage, 0.9, lines, 12.0, MANAGERS, manager)


def feed_until(view: Display, name: str) -> None:
    """Go on until there is a file of this name."""
    while not Path(name).exists():
        view.update(snapshot())
        time.sleep(0.02)


def closes(view: Display) -> None:
    """The ordinary way."""
    view.message("Claimed run: 2090")
    view.message("no space left", level="warning")
    feed_until(view, "stop")
    view.close()
    view.close()
    keys, _, _ = select.select([0], [], [], 0)
    view.message(f"after the end, {len(keys)} keys left")


def raises(view: Display) -> None:
    """Nobody closes."""
    view.message("Claimed run: 2090")
    feed_until(view, "stop")
    raise RuntimeError("trouble")


def is_interrupted(view: Display) -> None:
    """Ctrl-C is a KeyboardInterrupt as ever."""
    try:
        feed_until(view, "never")
    except KeyboardInterrupt:
        view.message("User cancelling jobs...")
    view.close()


def is_terminated(view: Display) -> None:
    """A handler that was installed after the display, as the command line does."""

    def handle(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, handle)
    view.message("Claimed run: 2090")
    Path("pid").write_text(str(os.getpid()))
    feed_until(view, "never")


def says_much(view: Display) -> None:
    """More messages than are kept."""
    for number in range(display.KEPT_MESSAGES + 7):
        view.message(f"message {number}")
    view.close()


def fails(view: Display) -> None:
    """Drawing breaks down in the middle."""
    view.message("before")
    feed_until(view, "break")

    def broken(scene: Scene, width: int, height: int) -> Picture:
        raise ZeroDivisionError("no room")

    setattr(display, "render", broken)  # noqa: B010
    while view.live:
        view.update(snapshot())
        time.sleep(0.02)
    view.message("afterwards", level="error")
    view.progress(2091, 1, 2)
    view.close()


def progresses(view: Display) -> None:
    """A transfer that reports all the time; how often it is drawn goes into a file."""
    draws = 0
    original = layout.render

    def counting(scene: Scene, width: int, height: int) -> Picture:
        nonlocal draws
        draws += 1
        return original(scene, width, height)

    view.update(snapshot())
    start = time.monotonic()
    setattr(display, "render", counting)  # noqa: B010
    while not Path("stop").exists():
        for _ in range(1000):
            view.progress(2091, 99 * GB // 100, GB)
    view.close()
    took = time.monotonic() - start
    Path("draws").write_text(f"{draws} {took}")


def is_written_over(view: Display) -> None:
    """Something else writes to the same terminal."""
    screen.REPAINT_EVERY = 1e9
    view.update(snapshot())
    while not Path("drawn").exists():
        time.sleep(0.02)
    os.write(2, b"\x1b[4;1Hstray")
    feed_until(view, "seen")
    screen.REPAINT_EVERY = 0.0
    feed_until(view, "stop")
    view.close()


def outlives_its_terminal(view: Display) -> None:
    """The connection breaks."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Path("ready").touch()
    feed_until(view, "stop")
    view.message("nobody reads this")
    view.close()
    Path("survived").touch()
    os._exit(0)  # what is left in the buffer of standard output cannot be written any more


def is_used(view: Display) -> None:
    """Somebody presses keys; ``q`` and ``r`` are Ctrl-C."""
    LOG.write_text("".join(f"event {number}\n" for number in range(100)))
    view.message("Claimed run: 2090")
    try:
        feed_until(view, "stop")
    except KeyboardInterrupt:
        view.message("User cancelling jobs...")
    view.close()


def is_repainted(view: Display) -> None:
    """Each drawing is as if something else had written over all of it."""
    screen.REPAINT_EVERY = 0.0
    feed_until(view, "stop")
    view.close()


def has_many_runs(view: Display) -> None:
    """More than any screen has room for."""
    lines = tuple(
        RunLine(run, "running", float(run), detail=f"job {run}", dataset="SiR2", attempt=1)
        for run in range(1000, 1100)
    )
    while not Path("stop").exists():
        view.update(snapshot(lines))
        time.sleep(0.05)
    view.close()


def is_looked_at(view: Display) -> None:
    """An onlooker's, until that one has had enough."""
    while not view.quitting.is_set():
        view.update(snapshot(manager=None))
        time.sleep(0.02)
    view.close()


def counts_aloud(view: Display) -> None:
    """Leaves a sign of life in a file, all the time."""
    number = 0
    view.message("Claimed run: 2090")
    while not Path("stop").exists():
        number += 1
        view.update(snapshot())
        view.message(f"turn {number}")
        part = Path("turns.part")
        part.write_text(str(number))
        part.rename("turns")
        time.sleep(0.01)
    view.close()


SCENARIOS: dict[str, Callable[[Display], None]] = {
    scenario.__name__: scenario
    for scenario in (
        closes,
        raises,
        is_interrupted,
        is_terminated,
        says_much,
        fails,
        progresses,
        is_written_over,
        outlives_its_terminal,
        is_used,
        is_repainted,
        has_many_runs,
        is_looked_at,
        counts_aloud,
    )
}

if __name__ == "__main__":
    try:
        # The commands of its menu find no database there.
        door = Door(Path("no database"), None, lambda: {"alcapana": None, "rootana": "alcapana"})
        shown = Display(door, onlooker=sys.argv[1] == "is_looked_at")
    except DisplayUnavailable as error:
        sys.exit(f"ERROR: {error}")
    SCENARIOS[sys.argv[1]](shown)
