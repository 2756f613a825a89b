"""The server that all simulated commands ask: a thread of the test's own process."""

from __future__ import annotations

import marshal
import os
import select
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from simulated.call import Answer, Call, NotSimulatedError
from simulated.cluster import Cluster, Terms
from simulated.faults import NO_FAULTS, Fault, Faults, Shows
from simulated.systems import SYSTEMS

CLIENT = Path(__file__).with_name("client.py")
_PATIENCE = 1.0  # seconds after which a command's own time-out ends its wait for a frozen server


class SimulatedServer:
    """A batch system for as long as it is entered; ``bin`` belongs on its users' PATH."""

    def __init__(
        self,
        system: str,
        directory: Path,
        *,
        terms: Terms | None = None,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.faults = faults
        self.calls: list[Call] = []
        self.wrong: list[str] = []  # what the test has to be ashamed of
        scripts = directory / "scripts"
        for path in (self.bin, scripts):
            path.mkdir(parents=True)
        self.cluster = Cluster(scripts, terms)
        self.dialect = SYSTEMS[system](self.cluster)
        self._install()
        self._listener = self._listen()
        self._line = threading.Thread(target=self._take_calls, name="switchboard")
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._thawed = threading.Event()
        self._thawed.set()

    def __enter__(self) -> Self:
        self.cluster.start()
        self._line.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thawed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._line.join()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()
        self.cluster.stop()
        assert not self.wrong, "\n".join(self.wrong)

    def freeze(self) -> None:
        """Have no command be answered."""
        self._thawed.clear()

    def thaw(self) -> None:
        """End ``freeze``."""
        self._thawed.set()

    def _install(self) -> None:
        client = self.directory / "client"
        client.write_text(f"#!{sys.executable} -IS\n{CLIENT.read_text()}")
        client.chmod(0o755)
        for name in self.dialect.commands:
            (self.bin / name).symlink_to(client)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        handle = os.open(self.directory, os.O_RDONLY)
        try:  # the true path may be too long for a socket
            listener.bind(f"/proc/self/fd/{handle}/socket")
        finally:
            os.close(handle)
        (self.directory / "socket").chmod(0o777)
        listener.listen(256)
        return listener

    # ----------------------------------------------------------------- calls

    def _take_calls(self) -> None:
        while not self._stopping.is_set():
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
            self._threads = {other for other in self._threads if other.is_alive()} | {thread}
            thread.start()

    def _serve(self, line: socket.socket) -> None:
        with line:
            try:
                call = _read(line)
                if call is not None:
                    self._treat(call, line)
            except NotSimulatedError as error:
                self.wrong.append(f"not simulated: {error}")
                _say(line, Answer(stderr=f"not simulated: {error}\n", code=70))
            except Exception:  # noqa: BLE001 - a thread: the test is to know of it
                self.wrong.append(traceback.format_exc())

    def _treat(self, call: Call, line: socket.socket) -> None:
        self.calls.append(call)
        dialect = self.dialect
        if dialect.is_local(call):
            _say(line, self._carry_out(call))
            return
        order = call.name not in dialect.questions
        if not self._thawed.wait(_PATIENCE):
            self._say_or_hang(line, dialect.failure(call, 0.0))
            self._thawed.wait()
            if order and dialect.takes_what_it_did_not_answer:
                self._carry_out(call)
            return
        fault = self.faults.next(order=order)
        answer = Answer()
        if fault.carried_out and not fault.delay:
            answer = self._carry_out(call)
        self._say_or_hang(line, self._shown(call, fault, answer))
        if fault.delay and not self._stopping.wait(fault.delay):
            self._carry_out(call)

    def _carry_out(self, call: Call) -> Answer:
        with self.cluster.lock:
            return self.dialect.answer(call)

    def _shown(self, call: Call, fault: Fault, answer: Answer) -> Answer | None:
        match fault.shows:
            case Shows.HANGS:
                return None
            case Shows.FAILURE:
                return self.dialect.failure(call, fault.chance)
            case Shows.NOTHING:
                return Answer()
            case Shows.HALF:
                return fault.cut(answer)
            case Shows.ALL:
                return answer

    def _say_or_hang(self, line: socket.socket, answer: Answer | None) -> None:
        if answer is None:
            self._wait_for_its_end(line)
        else:
            _say(line, answer)

    def _wait_for_its_end(self, line: socket.socket) -> None:
        """Until the command was killed: its half of the line has been closed all the time."""
        poll = select.poll()
        poll.register(line, 0)  # tells hang-ups only
        while not self._stopping.is_set() and not poll.poll(50):
            pass


def _read(line: socket.socket) -> Call | None:
    parts = []
    while part := line.recv(65536):
        parts.append(part)
    if not parts:
        return None
    name, arguments, stdin, directory, environment, uid = marshal.loads(b"".join(parts))
    words: Mapping[str, str] = environment
    return Call(name, tuple(arguments), stdin.decode(), directory, words, uid)


def _say(line: socket.socket, answer: Answer) -> None:
    whole = (answer.stdout.encode(), answer.stderr.encode(), answer.code)
    try:
        line.sendall(marshal.dumps(whole))
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it did not wait for the answer
