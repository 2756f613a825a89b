"""Print what a shell must read to complete commands, options, runs, datasets and so on.

Both for `production` and for `run_production.py`, as they are found on the PATH.
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("production", "run_production.py")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(PROGRAMS, use_defaults=False, shell=options.shell).strip())
    return 0
