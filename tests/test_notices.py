"""People who do not look are told: by a command, by mail, and never in a flood."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import AuthResult
from experiment import PROJECT, Experiment, experiment

from production.errors import CommandError, Interrupted, NoticeNotSent, RunsFailed
from production.notify.channels import CommandChannel, Herald, MailChannel
from production.notify.notices import Event, Notice, NoticeRules, Notices

ALL = (Event.END, Event.FAILURE, Event.PAUSE)
LOGIN = ("me", "sesame open")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ------------------------------------------------------------------------------- when


def test_of_failures_the_first_is_told(clock: Clock) -> None:
    notices = Notices("alcapana v1", NoticeRules(ALL), clock)
    first = notices.failed(2091, "segmentation fault")
    assert first is not None
    assert first.subject == ("alcapana v1: Run 2091 is the first that failed: segmentation fault")
    clock.now += 10_000
    assert notices.failed(2092, "segmentation fault") is None


def test_finished_runs_are_told_by_the_number(clock: Clock) -> None:
    notices = Notices("alcapana v1", NoticeRules((), every=100, apart=0.0), clock)
    assert notices.finished(99) is None
    told = notices.finished(3)
    assert told is not None
    assert "102 runs finished" in told.text
    assert notices.finished(97) is None
    assert notices.finished(1) is not None


def test_what_comes_too_early_is_told_with_the_next(clock: Clock) -> None:
    notices = Notices("alcapana v1", NoticeRules(ALL, every=1, apart=600.0), clock)
    assert notices.finished() is not None
    for _ in range(10):
        clock.now += 50
        assert notices.finished() is None
    assert notices.paused("no space") is None
    clock.now += 100
    told = notices.finished()
    assert told is not None
    assert "Paused: no space" in told.text
    assert told.text.count("\n") == 12


def test_the_end_is_told_at_once(clock: Clock) -> None:
    notices = Notices("alcapana v1", NoticeRules(ALL), clock)
    assert notices.paused("by user me") is not None
    assert notices.ended("Nothing left to do here") is not None


def test_what_nobody_wants_to_know_is_not_told(clock: Clock) -> None:
    notices = Notices("alcapana v1", NoticeRules((Event.END,)), clock)
    assert notices.failed(1, "crash") is None
    assert notices.paused("no space") is None
    assert notices.finished() is None
    told = notices.ended("done")
    assert told == Notice("alcapana v1: done", "done\n")


def test_a_subject_is_one_short_line(clock: Clock) -> None:
    told = Notices("alcapana v1", NoticeRules(ALL), clock).ended("one\ntwo" + "x" * 1000)
    assert told is not None
    assert "\n" not in told.subject
    assert len(told.subject) < 130


# ------------------------------------------------------------------------------- how


class Box(Message):
    """What a mail server was given."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def handle_message(self, message: object) -> None:
        self.messages.append(str(message))


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def server(box: Box) -> Iterator[Controller]:
    """A real SMTP server on a free port."""
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield controller
    controller.stop()


def free_port() -> int:
    """One that the kernel will not give away again soon; 0 is none for a Controller."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def mail(port: int, *, login: tuple[str, str] | None = None) -> MailChannel:
    receivers = ["shift@example.org", "me@example.org"]
    return MailChannel(receivers, "production@example.org", "127.0.0.1", port, lambda _: login)


def test_mail_arrives(server: Controller, box: Box) -> None:
    mail(server.port).send(Notice("rootana v8: Ended", "Ended. 5 F\n"))
    (message,) = box.messages
    assert "Subject: rootana v8: Ended\n" in message
    assert "To: shift@example.org, me@example.org\n" in message
    assert message.endswith("Ended. 5 F\n")


def test_mail_with_the_name_of_a_file_that_is_no_text_arrives(server: Controller, box: Box) -> None:
    name = b"r\xfcn".decode(errors="surrogateescape")  # Latin-1
    mail(server.port).send(Notice(f"Paused: {name}", f"no space on /{name}\n"))
    assert "no space on /r?n" in box.messages[0]


def test_an_address_that_is_none_is_told() -> None:
    channel = replace(mail(1), receivers=["two\nlines"])
    with pytest.raises(NoticeNotSent, match="linefeed"):
        channel.send(Notice("subject", "text\n"))


@pytest.fixture
def given() -> list[object]:
    """The logins that a server was given."""
    return []


@pytest.fixture
def strict(box: Box, given: list[object]) -> Iterator[Controller]:
    """A server that wants a login, and has no TLS."""

    def authenticate(*arguments: object) -> AuthResult:
        data = arguments[-1]
        given.append((data.login.decode(), data.password.decode()))  # type: ignore[attr-defined]
        return AuthResult(success=given[-1] == LOGIN, handled=False)

    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=authenticate,
        auth_require_tls=False,
        auth_required=True,
    )
    controller.start()
    yield controller
    controller.stop()


def test_a_server_with_a_login_is_given_the_one_of_netrc(
    strict: Controller, box: Box, given: list[object]
) -> None:
    mail(strict.port, login=LOGIN).send(Notice("s", "t\n"))
    assert given == [LOGIN]
    with pytest.raises(NoticeNotSent, match="535") as caught:
        mail(strict.port, login=("me", "wrong word")).send(Notice("s", "t\n"))
    assert "wrong" not in str(caught.value)
    with pytest.raises(NoticeNotSent, match="530"):
        mail(strict.port).send(Notice("s", "t\n"))
    assert len(box.messages) == 1


def test_a_password_goes_to_nobody_in_clear_text_but_this_machine(
    strict: Controller, given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("production.notify.channels.HERE", ())
    with pytest.raises(NoticeNotSent, match="STARTTLS"):
        mail(strict.port, login=LOGIN).send(Notice("s", "t\n"))
    assert given == []


def test_a_server_that_wants_no_login_is_given_none(server: Controller, box: Box) -> None:
    mail(server.port, login=LOGIN).send(Notice("s", "t\n"))
    assert len(box.messages) == 1


def test_all_ways_are_tried_and_the_first_trouble_is_told(tmp_path: Path) -> None:
    told = tmp_path / "told"
    good = CommandChannel(["sh", "-c", f'echo "$0" > {told}; cat >> {told}'])
    herald = Herald([mail(1), CommandChannel(["false"]), good])
    with pytest.raises(NoticeNotSent, match="Connection refused"):
        herald.send(Notice("a subject", "text\n"))
    assert told.read_text() == "a subject\ntext\n"
    with pytest.raises(CommandError):
        Herald([CommandChannel(["false"])]).send(Notice("s", "t\n"))


def test_a_command_is_told_all_that_the_locale_can_write(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"""
from production.notify.channels import CommandChannel
from production.notify.notices import Notice
tell = CommandChannel(["sh", "-c", 'echo "$0" > {told}; cat >> {told}'])
tell.send(Notice("Out of M\\xfcnchen: r\\udcfcn", "M\\xfcnchen \\u2026\\n"))
"""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **ascii_only}, cwd=PROJECT, check=True
    )
    assert told.read_text() == "Out of M?nchen: r?n\nM?nchen ?\n"


class Surprising:
    """A way that fails as nobody has thought of."""

    name = "way of a test"

    def send(self, notice: Notice) -> None:
        raise RuntimeError(f"unheard of: {notice.subject}")


def test_a_way_with_a_surprise_is_trouble_of_that_way(tmp_path: Path) -> None:
    told = tmp_path / "told"
    herald = Herald([Surprising(), CommandChannel(["sh", "-c", f"cat > {told}"])])
    with pytest.raises(NoticeNotSent, match="the way of a test: RuntimeError: unheard of: a subj"):
        herald.send(Notice("a subject", "text\n"))
    assert told.read_text() == "text\n"


# ------------------------------------------------------------------------------- a manager


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as lab:
        yield lab


@pytest.mark.slow
def test_a_manager_tells_of_its_end_and_of_the_first_failure(
    lab: Experiment, server: Controller, box: Box
) -> None:
    script = lab.directory / "tell.sh"
    script.write_text(f'echo "$1" >> {lab.directory}/told\n')
    lab.configure(
        defaults="pause = 0.1\nback_off = 0.1\nmax_attempts = 1",
        notify=f"""\
command = ["sh", "{script}"]
mail = "me@example.org"
server = "127.0.0.1"
port = {server.port}
apart = 0.1""",
    )
    lab.open_archive()
    lab.raw(2092).unlink()
    manager = lab.start()
    assert manager.wait() == RunsFailed.exit_code, manager.said
    first, last = (lab.directory / "told").read_text().splitlines()
    assert "Run 2092 is the first that failed" in first
    assert "Nothing left to do here" in last
    assert len(box.messages) == 2


@pytest.mark.slow
def test_a_mail_server_that_is_away_is_no_trouble_to_a_production(lab: Experiment) -> None:
    lab.configure(notify='mail = "me@example.org"\nserver = "127.0.0.1"\nport = 1')
    lab.open_archive()
    manager = lab.start()
    assert manager.wait() == 0, manager.said
    assert "notice could not be sent by the mail server 127.0.0.1:1" in manager.said
    lab.check_all_finished()


@pytest.mark.slow
def test_a_mail_server_that_says_nothing_does_not_keep_a_manager_from_ending(
    lab: Experiment,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        lab.configure(notify=f'mail = "me@example.org"\nserver = "127.0.0.1"\nport = {port}')
        lab.open_archive()
        lab.hold("payload")
        manager = lab.start(
            patch="""
import production.cli.run_command
import production.notify.channels
production.cli.run_command.NOTICE_PATIENCE = 0.2
production.notify.channels.TIMEOUT = None"""
        )
        manager.until(lambda: len(lab.ledger("begin")) > 0, "a job")
        manager.press_ctrl_c()
        assert manager.wait() == Interrupted(signal.SIGINT).exit_code, manager.said
    assert "The notice of the end took longer than 0.2 s and was given up" in manager.said
    lab.check_nothing_under_way()
