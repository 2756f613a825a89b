"""Kills a job's wrapper at one of its steps: before each command that bash executes in it.

bash itself counts, by a trap on DEBUG that functions inherit (bash(1): set -T).  What it starts
beside itself, the payload and the watchman, is not killed, and must end by itself.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from experiment import Experiment

LOG = "job-steps"  # in the experiment's directory: a line a step
STRUCK = "struck"  # is there when the job was killed

# Only the first job; the one that comes after it is left in peace.
BASH = """\
#!{bash}
if [[ ${{1-}} == */job.sh ]] && mkdir "$EXPERIMENT/first" 2> /dev/null; then
    export BASH_ENV=$EXPERIMENT/each-step
fi
exec {bash} "$@"
"""
EACH_STEP = """\
unset BASH_ENV
set -T
steps=0
before_each_step() {{
    ((BASHPID == $$)) || return 0
    printf '%s\\n' "$1" >> "$EXPERIMENT/{log}"
    if ((++steps == {at})); then
        : > "$EXPERIMENT/{struck}"
        kill -KILL $$
    fi
}}
trap 'before_each_step "$BASH_COMMAND"' DEBUG
"""


@dataclass(frozen=True)
class JobKill:
    """The first job is killed at its step ``at``, counted from 1; 0: its steps are counted only."""

    at: int = 0

    def arm(self, lab: Experiment) -> None:
        """Have it happen to the jobs of this experiment."""
        lab.add_command("bash", BASH.format(bash=shutil.which("bash")))
        text = EACH_STEP.format(log=LOG, struck=STRUCK, at=self.at)
        (lab.directory / "each-step").write_text(text)

    def struck(self, directory: Path) -> bool:
        """Whether it has happened in this experiment."""
        return (directory / STRUCK).exists()


def count(directory: Path) -> int:
    """How many steps the first job had."""
    return len((directory / LOG).read_text().splitlines())
