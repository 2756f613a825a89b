"""An example of each command, at the end of its help and in its manual page.

Each stands in docs/commands.md as well, where the tests run it.
"""

from __future__ import annotations

EXAMPLES = {
    "run": "run_production.py --production=alcapana --new=alcapana_v1 --dataset=SiR2",
    "init": "production init",
    "datasets import": "production datasets import runs.csv",
    "datasets add": "production datasets add Al50 2101-2103,2119 --quality=gold --tranche=1 "
    "--geometry=P5",
    "datasets list": "production datasets list",
    "import": "production import old.db",
    "status": "production status",
    "watch": "production watch alcapana_v1",
    "runs": "production runs --production=alcapana --version=1 "
    "--columns=run,dataset,status,attempt",
    "failures": "production failures --production=alcapana --version=4",
    "stats": "production stats --production=alcapana --version=1",
    "plot": "production plot progress --file=progress.png",
    "logs": "production logs 2091 --production=alcapana --version=1",
    "wait": "production wait --production=alcapana --version=2 --until='failed>5' --timeout=2h",
    "explain": "production explain 2101 --production=rootana --version=1 --quick",
    "retry": 'production retry --dataset=SiR2 --reason="bank ADC0" --production=alcapana '
    "--version=1",
    "pause": "production pause --production=alcapana",
    "resume": "production resume --production=alcapana --everybody",
    "queue": "production queue long --production=rootana",
    "set": "production set nproc=20 spacelim=80 --production=alcapana --version=1",
    "stop": "production stop --production=alcapana --wait=1",
    "leave": "production leave --production=alcapana --manager=1",
    "kill": "production kill --production=alcapana --output=quiet",
    "history": "production history 2093",
    "trace": "production trace data/out/v1/out02091.root --checksums",
    "audit": "production audit --checksums",
    "doctor": "production doctor --seconds=1 --node",
    "backup": "production backup --commit=history",
    "restore": "production restore copy.db --database=again.db",
    "release": "production release 2091,2101 --production=alcapana --version=1",
    "recover": "production recover",
    "export": "production export --production=alcapana --version=1 --columns=run,status,tree",
    "vacuum": "production vacuum",
    "clean": "production clean --dry-run",
    "migrate": "production migrate",
    "completion": "production completion bash > completion.bash",
    "man": "production man --directory=manual",
}


def epilog(command: str) -> str | None:
    """What a help ends with; None for a command of which there is no example."""
    return f"Example:\n  $ {EXAMPLES[command]}" if command in EXAMPLES else None
