"""``python -m production`` is the ``production`` command."""

from production.cli import main

raise SystemExit(main())
