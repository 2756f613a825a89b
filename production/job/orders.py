"""The orders: all that the wrapper on the node is told, as a file of shell assignments.

The wrapper needs nothing but bash to read them.  Everything is quoted for the shell, so paths and
arguments may contain whatever a file name may.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from production.errors import RecipeError, file_trouble
from production.model import JobOrder

ORDERS = "orders"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def write_orders(order: JobOrder, done: Path) -> None:
    """Create all directories that the job needs before it starts, and write its orders.

    ``done`` is the directory where jobs announce that they ended.  Written again, the orders are
    replaced as a whole.  Raises SpoolTrouble, and RecipeError as ``render_orders`` and for what the
    locale has no character for.
    """
    text = _encoded(render_orders(order, done), order.name)
    temporary = order.spool / f"{ORDERS}.tmp"
    try:
        for directory in (order.spool, done, order.stdout.parent, order.stderr.parent):
            directory.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(text)
        temporary.replace(order.spool / ORDERS)
    except OSError as error:
        raise file_trouble(order.spool, error) from None


def render_orders(order: JobOrder, done: Path) -> str:
    """The text of the orders.

    Raises RecipeError for what cannot be told to a job: a variable that no shell can hold, a
    line break in the path of an output (the record has one line for each).
    """
    needs = order.requirements
    lines = [
        f"# Orders of job {_one_line(order.name)}, for sge_scripts/job.sh",
        _scalar("name", order.name),
        _scalar("script", order.script),
        _array("arguments", order.arguments),
        _scalar("environment", order.environment or ""),
        _array("variables", (f"{name}={value}" for name, value in _variables(order).items())),
        _array("output_names", (plan.name for plan in order.outputs)),
        _array("temporaries", (plan.temporary for plan in order.outputs)),
        _array("finals", (plan.final for plan in order.outputs)),
        _scalar("time", "" if needs.time is None else needs.time),
        _scalar("memory", "" if needs.memory is None else needs.memory),
        _scalar("done", done),
        _scalar("complete", "yes"),
    ]
    return "\n".join(lines) + "\n"


def _variables(order: JobOrder) -> dict[str, str]:
    """The payload's environment: the recipe's variables and ours, of which ours win."""
    variables = {
        "OMP_NUM_THREADS": str(order.requirements.cores),
        **order.variables,
        "RUN": str(order.run),
        "PM_SPOOL": str(order.spool),
    }
    for plan in order.outputs:
        for text in (plan.name, str(plan.temporary), str(plan.final)):
            if _CONTROL.search(text):
                raise RecipeError(
                    where=f"of job {order.name}",
                    what=f"output {plan.name!r} must not contain control characters: {text!r}",
                )
        suffix = re.sub(r"[^A-Z0-9_]", "_", plan.name.upper())
        variables[f"OUTPUT_{suffix}"] = str(plan.temporary)
        variables[f"FINAL_{suffix}"] = str(plan.final)
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise RecipeError(
                where=f"of job {order.name}", what=f"{name!r} cannot be an environment variable"
            )
    return variables


def _encoded(text: str, job: str) -> bytes:
    """The bytes that file names are made of, for many of the words are some."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as error:
        unknown = text[error.start : error.end]
        what = f"the locale ({error.encoding}) does not have {unknown!a}: set LC_ALL=C.UTF-8"
        raise RecipeError(where=f"of job {job}", what=what) from None


def _scalar(name: str, value: object) -> str:
    return f"order_{name}={shlex.quote(str(value))}"


def _array(name: str, values: Iterable[object]) -> str:
    return f"order_{name}=({' '.join(shlex.quote(str(value)) for value in values)})"


def _one_line(text: str) -> str:
    return _CONTROL.sub(" ", text)
