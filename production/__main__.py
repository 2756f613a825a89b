"""``python -m production`` is the ``production`` command."""

from production.begin import main

raise SystemExit(main())
