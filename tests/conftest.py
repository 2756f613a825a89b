"""What holds for all tests."""

from fixtures import books, target
from hypothesis import HealthCheck, settings

__all__ = ["books", "target"]

# How long an example takes says something about the machine, which may be busy, and nothing about
# what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
