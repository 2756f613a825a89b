"""Answers of commands that are none: recorded ones with something wrong, and plain nonsense."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

SEED = int(os.environ.get("SEED", random.randrange(2**32)))
EXAMPLES = 10_000


_SNIPPETS = "<>[]{}\",:;|\n\t\\'0123456789- aZ\0\x1b\xfc\u2028\ud7ff\U0001f600"


def _spoilt(text: str, chance: random.Random) -> str:
    """One to three times: a part is cut out, doubled, replaced by nonsense, or cut off."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randint(0, len(text))
        end = min(len(text), start + chance.choice((0, 1, 5, 50, 1000, len(text))))
        nonsense = "".join(chance.choices(_SNIPPETS, k=chance.randint(1, 12)))
        middle = chance.choice(("", nonsense, text[start:end] * 2))
        text = text[:start] + middle + text[end:]
    return text


def malformed(*recorded: str) -> st.SearchStrategy[str]:
    """Texts that are mostly no whole answers; ``recorded``: some that are."""
    # One draw a text, for hypothesis' own texts take milliseconds each.
    spoilt = st.tuples(st.sampled_from(recorded), st.integers(0, 2**64 - 1)).map(
        lambda drawn: _spoilt(drawn[0], random.Random(drawn[1]))
    )
    return spoilt | spoilt | spoilt | st.text(max_size=200) | st.sampled_from(recorded)


def spoilt_answers(*recorded: str, count: int = 3000) -> Iterator[str]:
    """So many of the kind, for parsers that take no time; prints its seed, as ``thorough`` does."""
    sys.stdout.write(f"SEED={SEED}\n")
    chance = random.Random(SEED)
    for _ in range(count):
        yield _spoilt(chance.choice(recorded), chance)


def thorough(test: Callable[[], None]) -> Callable[[], None]:
    """Have a test with ``given`` run 10 000 times.

    It prints its seed, by which the environment variable SEED repeats a run.
    """
    many = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    prepared = many(seed(SEED)(test))

    def run() -> None:
        sys.stdout.write(f"SEED={SEED}\n")
        prepared()

    run.__name__ = test.__name__
    return pytest.mark.slow(run)
