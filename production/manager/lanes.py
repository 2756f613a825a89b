"""Work beside the manager's loop: transfers, batch commands, file handling.

The loop's thread alone owns the database and the manager's state.  What may take long runs in a
lane; its result comes back into the loop's thread, where the function given as ``then`` gets it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class _Task:
    work: Callable[[], Any]
    then: Callable[[Any], None]


class Lane:
    """A thread that does one thing after the other, or ``width`` threads that share them.

    They are daemons: a transfer that hangs in the kernel must not keep the program from ending.
    """

    def __init__(self, name: str, results: Results, width: int = 1) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._results = results
        self._open = 0
        for _ in range(width):
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether any order has not come back yet."""
        return self._open > 0

    def do(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run ``work`` in the lane; ``then`` gets its result or its exception in the loop."""
        self._open += 1

        def back(result: Any) -> None:
            self._open -= 1
            then(result)

        self._tasks.put(_Task(work, back))

    def _serve(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                result = task.work()
            except BaseException as error:  # noqa: BLE001 - handed to the loop, which decides
                result = error
            self._results.put(partial(task.then, result))


class Results:
    """Where the lanes' results wait for the loop; also what wakes the loop up."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def put(self, deliver: Callable[[], None]) -> None:
        """Hand something to the loop's thread; safe in any thread and in a signal handler."""
        self._queue.put(deliver)

    def deliver(self, timeout: float, before: Callable[[], None] = lambda: None) -> None:
        """In the loop's thread: wait for the first result, then deliver all that are there.

        ``before`` is called before each: who knows how long this process has been stopped.
        """
        try:
            result = self._queue.get(timeout=max(timeout, 0.0))
            while True:
                try:
                    before()
                except BaseException:
                    self._queue.put(result)  # the roll-back waits for it
                    raise
                result()
                result = self._queue.get_nowait()
        except queue.Empty:
            return
