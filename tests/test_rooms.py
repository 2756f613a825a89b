"""The rooms know neither each other nor the manager (docs/architecture.md)."""

from __future__ import annotations

import re
from pathlib import Path

import production

HOUSE = Path(production.__file__).parent
ROOMS = ("audit", "batch", "job", "notify", "recipe", "space", "staging", "store", "view")
INSIDE = ("cli", "doctor", "explain", "manager", *ROOMS)
IMPORT = re.compile(r"^\s*from production(?:\.| import )(\w+)", re.MULTILINE)


def test_no_room_imports_from_another() -> None:
    found = {
        (path.relative_to(HOUSE).as_posix(), name)
        for room in ROOMS
        for path in (HOUSE / room).glob("*.py")
        for name in IMPORT.findall(path.read_text())
        if name in INSIDE and name != room
    }
    assert not found


def test_each_room_is_looked_at() -> None:
    for room in ROOMS:
        assert any(IMPORT.search(path.read_text()) for path in (HOUSE / room).glob("*.py")), room
