#!/usr/bin/env python3
"""Process the runs of a production: the front door, a thin script over production.cli."""

from production.cli import run_production

if __name__ == "__main__":
    raise SystemExit(run_production())
