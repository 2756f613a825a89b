#!/usr/bin/env python3
"""Process the runs of a production: the front door, a thin script over production.cli."""

if __name__ == "__main__":
    try:
        from production.begin import run_production

        code = run_production()
    except KeyboardInterrupt:  # before there was anything to undo
        code = 130
    raise SystemExit(code)
