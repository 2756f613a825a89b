"""--spacelim as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from production.units import parse_fraction


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("90", 0.9),
        ("90%", 0.9),
        ("0.9", 0.9),
        (".9", 0.9),
        ("90.", 0.9),
        (" 90 % ", 0.9),
        ("92.5", 0.925),
        ("100", 1.0),
        ("100%", 1.0),
        ("1", 1.0),
        ("1.0", 1.0),
        ("1%", 0.01),
        ("0.5%", 0.005),
        ("2", 0.02),
    ],
)
def test_percentages_and_fractions(text: str, fraction: float) -> None:
    assert parse_fraction(text) == fraction


@pytest.mark.parametrize(
    "text",
    [
        *["", "%", ".", "ninety", "nan", "inf", "1e2", "0x5a", "٩٠", "9_0", "9 0", "0,9", "90%%"],
        *["0", "0%", "0.0", "-90", "101", "100.1%", "9" * 400, "0." + "0" * 400 + "1", "90\n80"],
    ],
)
def test_anything_else_is_refused_with_an_explanation(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_fraction(text)
    assert "is not a limit: write a percentage (90 or 90%) or 0.9" in str(raised.value)


@given(st.text())
def test_a_limit_is_a_fraction_or_an_error(text: str) -> None:
    try:
        assert 0 < parse_fraction(text) <= 1
    except ValueError:
        assert text not in ("90", "90%", "0.9")


@given(st.integers(2, 100))
def test_whole_percentages_in_every_way(percent: int) -> None:
    assert parse_fraction(str(percent)) == parse_fraction(f"{percent}%") == percent / 100
