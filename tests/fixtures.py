"""What many tests are given; conftest.py hands it to all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bookkeeping import Bookkeeping, bookkeeping


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    """A bookkeeping with nothing in it."""
    with bookkeeping(tmp_path) as books:
        yield books


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a raw file is to come."""
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw" / "run02091.mid"
