"""The production manager: thousands of runs, versioned software, one shared SQLite file."""

__version__ = "1.0.0"
