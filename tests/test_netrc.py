"""The netrc file: read when needed, refused with a remedy when it is not as it should be."""

from __future__ import annotations

import os
from collections.abc import Callable
from netrc import netrc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from production.errors import NetrcError
from production.staging.credentials import Credentials, login_for, login_if_any, objection_to

HOST = "archive.example.org"
SECRET = "s3cr3t-Zq"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def write(text: str, mode: int = 0o600) -> Path:
        path = tmp_path / ".netrc"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def refusal(host: str = HOST) -> str:
    with pytest.raises(NetrcError) as raised:
        login_for(host)
    text = str(raised.value)
    assert SECRET not in text + repr(raised.value)
    assert "\n" not in text
    assert raised.value.exit_code == 21
    return text


@pytest.mark.parametrize(
    "text",
    [
        f"machine {HOST} login me password {SECRET}",
        f"machine {HOST}\n        login me\n        password {SECRET}\n",
        f"machine other login x password y\nmachine {HOST} login me password {SECRET}\n",
        f"default login me password {SECRET}\n",
        f"default login x password y machine {HOST} login me password {SECRET}",
        f"# my logins, don't show\n\n# here\nmachine {HOST} # the archive\n login me\n\n"
        f"# 2014\n password {SECRET}",
        f"machine {HOST.upper()} user me account a password {SECRET}",
        f"machine\n{HOST}\nlogin\nme\npassword\n{SECRET}\r\n",
        f"macdef init\ncd /data\nmachine no login no\n\nmachine {HOST} login me password {SECRET}",
        f"machine {HOST} login me password {SECRET}\nmachine {HOST} login you password other",
        f"\ufeffmachine {HOST} login me password {SECRET}",
        f"machine {HOST} login me password {SECRET}\nmacdef init\nmachine {HOST} login no",
        f"machine x login y password z\nmacdef m\n{SECRET} x\n\ndefault login me password {SECRET}",
        f"machine {HOST}#x login y password z\nmachine {HOST} login me password {SECRET} # old: x",
        f'machine "{HOST}" login "me" password "{SECRET}"',
        f"machine {HOST} login me account x password {SECRET}\n\n\n",
    ],
)
def test_entry_is_found(write: Callable[[str], Path], text: str) -> None:
    write(text)
    assert login_for(HOST) == Credentials("me", SECRET)


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ('"two words"', "two words"),
        (r'"a \"quoted\" one"', 'a "quoted" one'),
        (r"back\\slash", r"back\slash"),
        ('""', ""),
        ("#hash", "#hash"),
        ("machine", "machine"),
        ("pässwörd", "pässwörd"),
        ('mid"quote', 'mid"quote'),
    ],
)
def test_passwords_may_hold_anything(
    write: Callable[[str], Path], written: str, password: str
) -> None:
    write(f"machine {HOST} password {written} login me\n")
    assert login_for(HOST) == Credentials("me", password)


def test_environment_names_another_file(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(f"default login me password {SECRET}").rename(tmp_path / "logins")
    monkeypatch.setenv("NETRC", "~/logins")
    assert login_for(HOST).user == "me"
    monkeypatch.setenv("NETRC", "")
    assert f"{tmp_path}/.netrc" in refusal()


def test_password_is_not_in_repr(write: Callable[[str], Path]) -> None:
    write(f"default login me password {SECRET}")
    assert SECRET not in repr(login_for(HOST))
    assert SECRET not in f"{login_for(HOST)}"


def test_where_a_login_need_not_be_its_absence_is_no_error(write: Callable[..., Path]) -> None:
    assert login_if_any(HOST) is None
    write(f"machine other.example.org login me password {SECRET}\n")
    assert login_if_any(HOST) is None
    write(f"default login me password {SECRET}\n")
    assert login_if_any(HOST) == Credentials("me", SECRET)
    for text, mode in ((f"machine {HOST} login me\n", 0o600), (f"default x {SECRET}", 0o600)):
        write(text, mode)
        with pytest.raises(NetrcError):
            login_if_any(HOST)
    write(f"default login me password {SECRET}\n", 0o644)
    with pytest.raises(NetrcError, match="chmod 600"):
        login_if_any(HOST)


# --------------------------------------------------------------------------- refusals


def test_missing_file_says_what_to_write(write: Callable[[str], Path], tmp_path: Path) -> None:
    text = refusal()
    assert f"Login for {HOST} in {tmp_path}/.netrc: there is no such file" in text
    assert "machine HOST login USER password PASSWORD" in text
    assert f"chmod 600 {tmp_path}/.netrc" in text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o610])
def test_file_open_to_others_is_refused(write: Callable[..., Path], mode: int) -> None:
    path = write(f"default login me password {SECRET}", mode)
    assert f"Close it with: chmod 600 {path}" in refusal()
    path.chmod(0o400)
    assert login_for(HOST).user == "me"


def test_file_of_another_user_is_refused(write: Callable[[str], Path]) -> None:
    path = write(f"default login me password {SECRET}")
    status = path.stat()
    assert "belongs to another user" in objection_to(status, path, status.st_uid + 1)
    assert objection_to(status, path, status.st_uid) == ""
    assert objection_to(status, path, reader=0) == ""


def test_what_is_no_file_is_refused(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        monkeypatch.setenv("NETRC", str(place))
        assert "not a regular file" in refusal()
    monkeypatch.setenv("NETRC", str(write("") / "below"))
    assert "cannot be read: Not a directory" in refusal()


def test_host_without_entry(write: Callable[[str], Path]) -> None:
    write(f"machine other.example.org login me password {SECRET}\n")
    assert f"no entry for this host. Add the line: machine {HOST} login" in refusal()
    write("")
    assert "no entry" in refusal()


@pytest.mark.parametrize(
    ("text", "missing"),
    [(f"machine {HOST} login me\n", "password"), (f"default password {SECRET}", "login")],
)
def test_incomplete_entry(write: Callable[[str], Path], text: str, missing: str) -> None:
    write(text)
    assert f"the entry has no {missing}" in refusal()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"machine {HOST} login me password {SECRET} port 21\n", "line 1 cannot be understood"),
        (f"# one\n# two\n\nmachine {HOST}\nlogin me\npasswd {SECRET}\n", "line 6 cannot"),
        (f"machine {HOST} login me password two {SECRET}", "line 1 cannot be understood"),
        (f"macdef m\nx\ny\n\n{SECRET}", "line 5 cannot be understood"),
        (f"login me password {SECRET}", "line 1 cannot be understood"),
        (f'machine {HOST} login me\npassword "{SECRET}\n', "line 2 has a quote"),
        (f"machine {HOST} login me\npassword {SECRET}\\", "line 2 has a quote or a backslash"),
        (f"machine {HOST} password {SECRET} login", "the file ends after the word login"),
        ("machine", "the file ends after the word machine"),
    ],
)
def test_what_cannot_be_read_names_the_line(
    write: Callable[[str], Path], text: str, said: str
) -> None:
    write(text)
    assert said in refusal()


def test_text_that_is_not_utf8_names_the_line(write: Callable[[str], Path]) -> None:
    path = write("")
    path.write_bytes(b"machine x login y\npassword s3cr3t-Zq\xfc\n")
    assert "line 2 is not UTF-8" in refusal()


# --------------------------------------------------------------------------- any text at all


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("netrc") / "netrc"
    path.touch(0o600)
    return path


KEYWORDS = ["machine", "default", "login", "password", "account", "macdef", "port"]
SPACES = ["\n", "\n\n", "\t", "\r\n", "\0"]
SECRETS = [SECRET, f'"{SECRET}', f"{SECRET}\\"]
WORDS = st.sampled_from([*KEYWORDS, *SPACES, *SECRETS, HOST, "#", '"', "\\"])


@settings(max_examples=40)
@given(words=st.lists(WORDS, max_size=25), noise=st.text(max_size=5))
def test_no_text_leaks_or_crashes(file: Path, words: list[str], noise: str) -> None:
    file.write_text(" ".join([*words, noise]), errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", str(file))
        try:
            login_for(HOST)
        except NetrcError as error:
            assert SECRET not in str(error)


TOKEN = st.text("abcXYZ019.-_$ü\\\"' ", min_size=1, max_size=8)


@given(logins=st.dictionaries(st.sampled_from(["a.org", "b.org", "c"]), st.tuples(TOKEN, TOKEN)))
def test_pythons_own_netrc_reads_the_same(file: Path, logins: dict[str, tuple[str, str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    file.write_text(
        "".join(
            f"machine {host}\n  login {quoted(user)} password {quoted(password)}\n"
            for host, (user, password) in logins.items()
        )
    )
    theirs = netrc(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", str(file))
        for host, (user, password) in logins.items():
            assert login_for(host) == Credentials(user, password)
            assert theirs.authenticators(host) == (user, "", password)
