"""What a web server shows of a directory: a page of links (HTML), or a list in JSON.

Every server makes its pages in its own way, so only the links count, and of these only such as lead
to something in that very directory; how to sort the page, the directory above and whatever else is
written there are none of them.  A name that comes out of here is no path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

_HTML = ("text/html", "application/xhtml+xml")
_JSON = "application/json"


def names_in(page: bytes | bytearray, kind: str, url: str) -> list[str]:
    """The files that the page at ``url`` shows; ``kind`` is its Content-Type.

    Raises ValueError when that is not the page of a directory.
    """
    kind = kind.partition(";")[0].strip().lower()
    if kind == _JSON:
        found = _of_json(page)
    elif kind in _HTML:
        found = _of_links(page, url)
    else:
        raise ValueError(f"no list of a directory, but {kind or 'something unknown'}")
    return list(dict.fromkeys(name for name in found if _is_plain(name)))


def _of_json(page: bytes | bytearray) -> Iterable[str]:
    """As nginx (``autoindex_format json``) and Caddy write it."""
    try:
        entries = json.loads(page)
    except RecursionError:
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("no list of a directory, but other JSON")
    return [str(entry.get("name", "")) for entry in entries if entry.get("type") != "directory"]


def _of_links(page: bytes | bytearray, url: str) -> Iterable[str]:
    links = _Links()
    links.feed(page.decode(errors="replace"))
    links.close()
    here = urlsplit(url)
    directory = unquote(here.path.rpartition("/")[0])
    for link in links.found:
        try:
            parts = urlsplit(urljoin(url, link.strip()))
            # What is no UTF-8 could not be asked for by this name.
            path, _, name = parts.path.rpartition("/")
            name = unquote(name, errors="strict")
        except ValueError:
            continue
        if parts[:2] == here[:2] and unquote(path) == directory and not parts.query:
            yield name


def _is_plain(name: str) -> bool:
    """Whether it is the name of a file in the directory, and nothing that leads elsewhere."""
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """See ``HTMLParser``."""
        if tag == "a":
            self.found += [value for name, value in attributes if name == "href" and value]
