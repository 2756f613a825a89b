"""What web servers show of a directory: the files in it, and nothing else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_behaviour import write_netrc
from archive_servers import Kind, Server, apache, nginx, running
from hypothesis import given
from hypothesis import strategies as st
from network.needs import NoFilesystemError

from production.errors import ArchiveLoginRefused, TransferFailed
from production.staging.archive import Archive, open_archive
from production.staging.web_listing import names_in

HERE = "https://archive.example.org/mu2e/run%201/"

# Names that a web server has to write in another way, each in its own.
NAMES = [
    "run02091sub0.mid",
    "run02091sub10.mid",
    "run02091sub2 a&b.mid",
    "run02091sub3'\"<>.mid",
    "run02091sub4#%25?;=+.mid",
    "run02091sub5:ü€.mid",
    f"run02091sub6{'x' * 100}.mid",
]


def links(*targets: str) -> bytes:
    return "".join(f'<a href="{target}">anything</a>\n' for target in targets).encode()


def listed(page: bytes, kind: str = "text/html", url: str = HERE) -> list[str]:
    return names_in(page, kind, url)


# --------------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    "target",
    [
        "run1.mid",
        "./run1.mid",
        "/mu2e/run%201/run1.mid",
        "/mu2e/run 1/run1.mid",
        "https://archive.example.org/mu2e/run%201/run1.mid",
        "//archive.example.org/mu2e/run%201/run1.mid",
        "../run%201/run1.mid#part",
        "%72un1.mid",
    ],
)
def test_links_to_a_file_in_the_directory_count_in_any_form(target: str) -> None:
    assert listed(links(target, target)) == ["run1.mid"]


@pytest.mark.parametrize(
    "target",
    [
        "../",
        "/mu2e/run.mid",
        "../run.mid",
        "sub/run.mid",
        "sub/",
        "..%2Frun.mid",
        "%2E%2E",
        "..",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "a%00b",
        "a%0Ab",
        "%1B[2J",
        "%ff%fe",
        "?C=N;O=D",
        "run.mid?download",
        "#top",
        "https://elsewhere.example.org/mu2e/run%201/run.mid",
        "http://archive.example.org/mu2e/run%201/run.mid",
        "https://[broken/run.mid",
        "mailto:somebody@example.org",
        "javascript:alert(1)",
        "",
    ],
)
def test_links_to_anything_else_do_not(target: str) -> None:
    assert listed(links(target, "run1.mid")) == ["run1.mid"]


def test_a_page_is_read_whatever_else_is_on_it() -> None:
    page = b"<!-- <a href=no1> --><p>run.mid \xff<A class=x HREF=one.mid>a<a href='two.mid'"
    page += b"><a name=top><a href>b</a><script>'<a href=no2>'</script><a href=three.mid>c"
    assert listed(page, "Text/HTML; charset=utf-8") == ["one.mid", "two.mid", "three.mid"]
    assert listed(b"") == []


def test_a_list_in_json_is_read() -> None:
    entries = [
        {"name": "a.mid", "type": "file", "size": 1},
        {"name": "b", "type": "directory"},
        {"name": "../c.mid"},
        {"size": 3},
    ]
    assert listed(json.dumps(entries).encode(), "application/json") == ["a.mid"]


@pytest.mark.parametrize("page", [b"{", b"{}", b"[1]", b"7", b"\xff", b"[" * 200_000])
def test_other_json_is_no_list(page: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expect|other JSON|codec"):
        listed(page, "application/json")


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", ""])
def test_what_is_neither_is_no_list(kind: str) -> None:
    with pytest.raises(ValueError, match="no list of a directory"):
        listed(links("run1.mid"), kind)


@given(st.text(), st.sampled_from(["text/html", "application/json"]))
def test_no_page_leads_out_of_the_directory(text: str, kind: str) -> None:
    page = text.encode(errors="replace")
    for body in (page, links(text), json.dumps([{"name": text}]).encode()):
        try:
            found = listed(body, kind)
        except ValueError:
            continue
        assert not [name for name in found if "/" in name or name in ("", ".", "..")]


# --------------------------------------------------------------------------- real servers

MORE = """\
location /list/ {{ alias {base}/root/; autoindex on; }}
location /json/ {{ alias {base}/root/; autoindex on; autoindex_format json; }}
location /moved/ {{ rewrite ^/moved/(.*)$ /list/$1 redirect; }}
location /text/ {{ alias {base}/root/; autoindex on; types {{ }} index a.txt; }}
"""


def _nginx(base: Path) -> Server:
    return nginx(base, more=MORE.format(base=base))


@pytest.fixture(scope="module", params=[_nginx, apache], ids=["nginx", "apache"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind: Kind = request.param
    try:
        with running(kind, tmp_path_factory.mktemp("web")) as server:
            (server.root / "R 13").mkdir()
            for name in (*NAMES, "run02091.mid", "run02092sub0.mid", "run02091sub0.mid.md5"):
                for directory in (server.root, server.root / "R 13"):
                    (directory / name).write_text(name)
            (server.root / "run02091sub7.mid").mkdir()
            (server.root / "a.txt").write_text("run02091sub0.mid")
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def client(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    write_netrc(tmp_path / "netrc", server)
    return tmp_path


def check(archive: Archive, directory: str) -> None:
    """All that fit are found, and can be asked for by these names."""
    found = archive.names(f"{directory}run02091sub*.mid")
    assert sorted(found) == sorted(directory + name for name in NAMES)
    assert set(archive.look(found).values()) == {None}
    assert archive.names(f"{directory}run02093sub*.mid") == []


@pytest.mark.slow
@pytest.mark.usefixtures("client")
def test_a_web_server_lists_what_fits(server: Server) -> None:
    archive = open_archive(f"{server.url}list/")
    check(archive, "")
    check(archive, "R 13/")
    assert archive.names("nowhere/run02091sub*.mid") == []


@pytest.mark.slow
@pytest.mark.parametrize("server", [_nginx], indirect=True, ids=["nginx"])
def test_the_lists_of_nginx_in_other_forms(server: Server, client: Path) -> None:
    check(open_archive(f"{server.url}json/"), "R 13/")
    assert len(open_archive(f"{server.url}moved/").names("run02091sub*.mid")) == len(NAMES)
    with pytest.raises(TransferFailed, match=r"run\*.*: no list of a directory, but application"):
        open_archive(f"{server.url}text/").names("run*")
    with pytest.raises(TransferFailed, match="403 Forbidden"):
        open_archive(server.url).names("run*")  # where nothing is shown
    (client / "netrc").unlink()
    with pytest.raises(ArchiveLoginRefused):
        open_archive(server.url).names("run*")


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Length: 1000", b""),
        ("Transfer-Encoding: chunked", b"26\r\n"),
        ("Server: old", b""),
    ],
)
def test_half_a_list_is_none(header: str, body: bytes) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{header}\r\n\r\n"
            connection.sendall(head.encode() + body + links("run1sub0.mid", "run1sub1.mid"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        archive = open_archive(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=20)
        with pytest.raises(TransferFailed, match=r"before the end|Incomplete|neither its size"):
            archive.names("run1sub*.mid")
        thread.join()
