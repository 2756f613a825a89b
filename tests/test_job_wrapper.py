"""The wrapper on the node: it runs an attempt once, publishes all or nothing, and says how it
ended."""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from job_orders import WRITE, Workshop, leaves_pid, pid_in, until
from packages import need

from production.batch import WRAPPER
from production.batch.processes import is_alive, running, session_members
from production.errors import RecipeError
from production.job.clean import discard_outputs, discard_spool
from production.job.fence import revoke
from production.job.orders import render_orders, write_orders
from production.job.record import read_record
from production.job.verdict import WRAPPER_EXIT_CODES
from production.model import JobOrder, Requirements

PYTHON = "exec python3 -c"
COREUTILS = ("date", "ln", "mkdir", "mv", "rm", "sha256sum", "sleep", "stat", "sync", "uname")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def files_below(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir())


# --------------------------------------------------------------------------- success


def test_a_good_job_publishes_its_output_and_records_it(workshop: Workshop) -> None:
    order = workshop.order()
    record = workshop.run(order)
    final = order.outputs[0].final
    content = final.read_bytes()
    assert content == b"one\ntwo\n"
    assert files_below(workshop.directory / "data") == ["tree/tree02091.root"]
    assert (record.phase, record.exit_code, record.signal, record.reason) == ("done", 0, None, "")
    assert record.host == os.uname().nodename
    assert record.start < record.stop
    output = record.outputs[0]
    assert (output.name, output.path, output.size) == ("tree", final, len(content))
    assert output.sha256 == hashlib.sha256(content).hexdigest()
    assert order.stderr.read_text() == ""
    assert order.stdout.read_text().startswith(f"Job {order.name} on {record.host}, ")


def test_any_name_that_a_file_may_have(tmp_path: Path) -> None:
    directory = tmp_path / 'it\'s a "test" $HOME `id`; ü * \\ #'
    directory.mkdir()
    arguments = ("", " ", "two words", "it's", '"', "$HOME", "a\nb", "-n", "\\", "*", "ü")
    workshop = Workshop(directory)
    order = workshop.order(
        'printf "<%s>" "$@" > "$OUTPUT_TREE"',
        arguments=arguments,
        environment="export FROM_SCRIPT=1",
        variables={"PLAIN": 'it\'s "so" $HOME\n`id`'},
    )
    record = workshop.run(order)
    assert order.outputs[0].final.read_text() == "".join(f"<{a}>" for a in arguments)
    assert record.outputs[0].path == order.outputs[0].final


def test_what_the_payload_finds_in_its_environment(workshop: Workshop) -> None:
    order = workshop.order(
        'printf "%s\\n" "$RUN" "$PM_SPOOL" "$OUTPUT_TREE" "$FINAL_TREE" "$OUTPUT_MY_HIST" \\\n'
        '  "$OMP_NUM_THREADS" "$GREETING" "$PWD" > "$OUTPUT_TREE"; echo . > "$OUTPUT_MY_HIST"',
        outputs=("tree", "my-hist"),
        variables={"GREETING": "hello", "RUN": "ours wins"},
        requirements=Requirements(cores=3),
    )
    workshop.run(order)
    tree, hist = order.outputs
    assert tree.final.read_text().split("\n")[:-1] == [
        "2091",
        str(order.spool),
        str(tree.temporary),
        str(tree.final),
        str(hist.temporary),
        "3",
        "hello",
        str(order.spool),
    ]


def test_bash_and_coreutils_are_enough(workshop: Workshop, tmp_path: Path) -> None:
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    for name in ("bash", *COREUTILS):
        found = shutil.which(name)
        assert found
        (bin_directory / name).symlink_to(found)
    order = workshop.order()
    assert workshop.run(order, PATH=str(bin_directory)).phase == "done"
    assert order.stderr.read_text() == ""


@pytest.mark.slow
def test_a_user_whose_language_writes_a_decimal_comma(workshop: Workshop, tmp_path: Path) -> None:
    need("locale-gen", "locales")
    locale = tmp_path / "de_DE.UTF-8"
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", locale], check=True)
    language = {"LOCPATH": str(tmp_path), "LC_ALL": locale.name}
    said = subprocess.run(
        ["bash", "-c", "echo $EPOCHREALTIME"],
        env={**os.environ, **language},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "." not in said.stdout
    order = workshop.order(f"sleep 0.1\n{WRITE}", requirements=Requirements(time=60))
    record = workshop.run(order, **language)
    assert record.phase == "done"
    assert record.start < record.stop
    assert record.cpu_seconds is not None
    assert order.stderr.read_text() == ""


def test_a_job_without_outputs(workshop: Workshop) -> None:
    record = workshop.run(workshop.order("true", outputs=()))
    assert (record.phase, record.outputs) == ("done", ())


def test_several_outputs(workshop: Workshop) -> None:
    order = workshop.order(
        'for o in "$OUTPUT_TREE" "$OUTPUT_HIST" "$OUTPUT_ODB"; do echo "$o" > "$o"; done',
        outputs=("tree", "hist", "odb"),
    )
    record = workshop.run(order)
    assert [output.name for output in record.outputs] == ["tree", "hist", "odb"]
    assert all(plan.final.read_text() == f"{plan.temporary}\n" for plan in order.outputs)


def path_with_ln(directory: Path, text: str) -> str:
    """A PATH on which ln fails, after it has done what ``text`` says."""
    command = directory / "bin" / "ln"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{text}\nexit 1\n")
    command.chmod(0o755)
    return f"{command.parent}:{os.environ['PATH']}"


def test_published_where_there_are_no_hard_links(workshop: Workshop, tmp_path: Path) -> None:
    path = path_with_ln(tmp_path, "echo 'ln: Operation not permitted' >&2")
    record = workshop.run(workshop.order(), PATH=path)
    assert record.phase == "done"
    assert files_below(workshop.directory / "data") == ["tree/tree02091.root"]


def test_what_was_removed_before_it_had_its_name_is_not_published(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Whoever gives an attempt up removes its temporary files first."""
    order = workshop.order()
    record = workshop.run(order, PATH=path_with_ln(tmp_path, 'rm "$3"'))
    assert record.reason.startswith(f"cannot publish {order.outputs[0].final}: ")
    assert files_below(workshop.directory / "data") == []


def test_cpu_time_and_memory_are_measured(workshop: Workshop) -> None:
    order = workshop.order(
        f'{PYTHON} \'\nimport os, time\nbig = b"x" * 100_000_000\n'
        "while time.process_time() < 0.5: pass\n"
        'open(os.environ["OUTPUT_TREE"], "w").write("x")\'\n'
    )
    record = workshop.run(order)
    assert record.cpu_seconds is not None
    assert record.cpu_seconds >= 0.5
    assert record.peak_memory is not None
    assert record.peak_memory >= 100_000_000


# --------------------------------------------------------------------------- the environment script


def test_the_environment_script_is_sourced(workshop: Workshop) -> None:
    order = workshop.order(
        'echo "$FOUND $GREETING" > "$OUTPUT_TREE"',
        environment='export FOUND="arguments:$*" GREETING=theirs order_name=x code=y\nset +u\n',
        variables={"GREETING": "ours"},
    )
    assert workshop.run(order).phase == "done"
    assert order.outputs[0].final.read_text() == "arguments: ours\n"


@pytest.mark.parametrize(("text", "code"), [("false", 1), ("exit 0", 0), ("return 7", 7)])
def test_an_environment_script_that_fails(workshop: Workshop, text: str, code: int) -> None:
    order = workshop.order(environment=f"echo no root here >&2\n{text}\n")
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (92, "preflight")
    assert record.reason == f"environment script failed (exit code {code}): {order.environment}"
    assert order.stderr.read_text() == "no root here\n"


def test_an_environment_script_that_is_missing(workshop: Workshop) -> None:
    order = workshop.order(environment="")
    assert order.environment
    order.environment.unlink()
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (92, "preflight")
    assert str(order.environment) in record.reason


# --------------------------------------------------------------------------- refusals


def test_a_job_script_that_is_missing(workshop: Workshop) -> None:
    order = workshop.order()
    order.script.unlink()
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (93, "preflight")
    assert record.reason == f"job script missing or unreadable: {order.script}"


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_an_output_that_exists_already(workshop: Workshop, kind: str) -> None:
    order = workshop.order(f"touch {workshop.directory}/ran\n{WRITE}", outputs=("tree", "hist"))
    final = order.outputs[1].final
    final.parent.mkdir(parents=True)
    if kind == "file":
        final.write_text("precious")
    else:
        final.symlink_to("nowhere")
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (94, "preflight")
    assert record.reason == f"output exists already: {final}"
    assert files_below(workshop.directory / "data") == ["hist/hist02091.root"]
    assert kind != "file" or final.read_text() == "precious"
    assert not (workshop.directory / "ran").exists()


def test_a_directory_that_cannot_be_made(workshop: Workshop) -> None:
    (workshop.directory / "data").write_text("a file in the way")
    record = workshop.run(workshop.order())
    assert (record.exit_code, record.phase) == (96, "preflight")


def test_orders_that_are_cut_off(workshop: Workshop) -> None:
    order = workshop.order()
    orders = order.spool / "orders"
    orders.write_text(orders.read_text().replace("order_complete=yes\n", ""))
    assert workshop.start(order).wait(timeout=60) == 90
    record = read_record(order.spool)
    assert record is not None
    assert (record.exit_code, record.phase) == (90, "start")


def test_a_payload_that_says_why_it_refuses(workshop: Workshop) -> None:
    order = workshop.order('echo "raw file missing: /x" > "$PM_SPOOL/reason"; exit 3')
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (3, "preflight")
    assert record.reason == "raw file missing: /x"


def test_a_reason_becomes_one_short_line(workshop: Workshop) -> None:
    order = workshop.order("printf '\\tsec\\033ret\\nexit_code=0\\n' > reason; exit 3")
    assert workshop.run(order).reason == "sec ret"
    order = workshop.order("printf '%5000s' x | tr ' ' x > reason; exit 3", run=2)
    assert workshop.run(order).reason == "x" * 500


# --------------------------------------------------------------------------- the payload fails


def test_the_exit_code_of_the_payload(workshop: Workshop) -> None:
    order = workshop.order(f"{WRITE}echo broken >&2; exit 42")
    record = workshop.run(order)
    assert (record.exit_code, record.phase, record.signal) == (42, "payload", None)
    assert record.outputs == ()
    assert files_below(workshop.directory / "data") == []
    assert order.stderr.read_text() == "broken\n"


@pytest.mark.parametrize("script", ["kill -SEGV $$", "bash -c 'kill -SEGV $$'; exit $?"])
def test_a_crash(workshop: Workshop, script: str) -> None:
    order = workshop.order(f"{WRITE}{script}\n")
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (139, "payload")
    assert record.signal == signal.SIGSEGV
    assert files_below(workshop.directory / "data") == []


def test_an_exit_code_that_only_looks_like_a_signal(workshop: Workshop) -> None:
    assert workshop.run(workshop.order("exit 255")).signal is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", "there is no {}"),
        (': > "$OUTPUT_HIST"', "{} is empty"),
        ('mkdir "$OUTPUT_HIST"', "{} is no file"),
        ('ln -s "$OUTPUT_TREE" "$OUTPUT_HIST"', "{} is no file"),
    ],
)
def test_an_output_that_was_not_written(workshop: Workshop, script: str, reason: str) -> None:
    order = workshop.order(f"{WRITE}{script}\n", outputs=("tree", "hist"))
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (95, "publish")
    why = reason.format(order.outputs[1].temporary)
    assert record.reason == f"did not write output hist: {why}"
    assert files_below(workshop.directory / "data") == []


# --------------------------------------------------------------------------- publishing fails


def test_an_output_that_somebody_else_makes_meanwhile(workshop: Workshop) -> None:
    order = workshop.order(
        f'{WRITE}echo > "$OUTPUT_HIST"; echo precious > "$FINAL_HIST"', outputs=("tree", "hist")
    )
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (94, "publish")
    assert files_below(workshop.directory / "data") == ["hist/hist02091.root"]
    assert order.outputs[1].final.read_text() == "precious\n"


def test_nothing_stays_published_when_one_output_cannot_be(workshop: Workshop) -> None:
    order = workshop.order(
        f'{WRITE}echo > "$OUTPUT_HIST"; rmdir "${{FINAL_HIST%/*}}"',
        outputs=("tree", "hist"),
        write=False,
    )
    tree, hist = order.outputs
    hist = replace(hist, final=workshop.directory / "data" / "elsewhere" / "hist.root")
    order = replace(order, outputs=(tree, hist))
    write_orders(order, workshop.done)
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (96, "publish")
    assert record.reason.startswith(f"cannot publish {hist.final}: ")
    assert files_below(workshop.directory / "data") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 200 kB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small filesystem cannot be mounted: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_the_disk_of_the_outputs_is_full(workshop: Workshop, small_disk: Path) -> None:
    order = workshop.order('head -c 1000000 /dev/zero > "$OUTPUT_TREE"', data=small_disk)
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (1, "payload")
    assert files_below(small_disk) == []
    assert "No space left" in order.stderr.read_text()


def test_the_disk_of_the_spool_is_full(tmp_path: Path, small_disk: Path) -> None:
    workshop = Workshop(small_disk)
    data = tmp_path / "data"
    order = workshop.order(f"{WRITE}cat /dev/zero > filler 2> /dev/null; true", data=data)
    assert workshop.start(order).wait(timeout=60) == 96
    assert read_record(order.spool) is None
    assert files_below(data) == []


# --------------------------------------------------------------------------- once and never twice


def test_a_second_start_is_refused(workshop: Workshop) -> None:
    order = workshop.order(f"echo x >> {workshop.directory}/ran\n{WRITE}")
    first = workshop.run(order)
    assert workshop.start(order).wait(timeout=60) == 91
    assert read_record(order.spool) == first
    assert (workshop.directory / "ran").read_text() == "x\n"


def test_of_many_starts_at_once_one_runs(workshop: Workshop) -> None:
    order = workshop.order(f"echo x >> {workshop.directory}/ran\n{WRITE}")
    codes = sorted(child.wait(timeout=60) for child in [workshop.start(order) for _ in range(8)])
    assert codes == [0, *[91] * 7]
    assert (workshop.directory / "ran").read_text() == "x\n"
    assert not list(order.spool.glob("starting.*"))


def test_an_attempt_that_was_revoked_does_not_start(workshop: Workshop) -> None:
    order = workshop.order(f"touch {workshop.directory}/ran\n{WRITE}")
    assert revoke(order.spool)
    assert workshop.start(order).wait(timeout=60) == 91
    assert read_record(order.spool) is None
    assert not (workshop.directory / "ran").exists()


@pytest.mark.parametrize("outputs", [("tree",), ()])
def test_an_attempt_that_is_revoked_while_it_runs_publishes_nothing(
    workshop: Workshop, outputs: tuple[str, ...]
) -> None:
    go = workshop.directory / "go"
    wait = f"until [ -e {go} ]; do sleep 0.02; done\n"
    order = workshop.order(f"{WRITE if outputs else ''}{wait}", outputs=outputs)
    job = workshop.start(order)
    until((order.spool / "started").exists)
    assert not revoke(order.spool)
    go.touch()
    assert job.wait(timeout=60) == 98
    record = read_record(order.spool)
    assert record is not None
    assert (record.exit_code, record.phase) == (98, "publish")
    assert files_below(workshop.directory / "data") == []


def test_a_job_whose_spool_was_cleared_away_publishes_nothing(workshop: Workshop) -> None:
    go = workshop.directory / "go"
    order = workshop.order(f"{WRITE}until [ -e {go} ]; do sleep 0.02; done")
    job = workshop.start(order)
    until(order.outputs[0].temporary.exists)
    shutil.rmtree(order.spool)
    go.touch()
    assert job.wait(timeout=60) == 96
    assert files_below(workshop.directory / "data") == []


@pytest.mark.parametrize("cleared", [False, True])
def test_a_job_that_was_long_frozen_leaves_the_next_attempts_output_alone(
    workshop: Workshop, tmp_path: Path, cleared: bool
) -> None:
    made, go = tmp_path / "made", tmp_path / "go"
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    slow = bin_directory / "ln"
    slow.write_text(
        f'#!/bin/bash\n{shutil.which("ln")} "$@"; code=$?\n'
        f"touch {made}; until [ -e {go} ]; do sleep 0.02; done; exit $code\n"
    )
    slow.chmod(0o755)
    order = workshop.order()
    plan = order.outputs[0]
    job = workshop.start(order, PATH=f"{bin_directory}:{os.environ['PATH']}")
    until(made.exists)
    revoke(order.spool)
    discard_outputs(order.spool, order.outputs)
    assert not plan.final.exists()
    if cleared:
        discard_spool(order.spool, workshop.done)
    plan.final.write_text("of the next attempt\n")
    go.touch()
    assert job.wait(timeout=60) == (96 if cleared else 98)
    assert files_below(workshop.directory / "data") == ["tree/tree02091.root"]
    assert plan.final.read_text() == "of the next attempt\n"


# --------------------------------------------------------------------------- signals and limits


def running_payload(workshop: Workshop, prelude: str = "") -> tuple[JobOrder, Path, Path]:
    """Orders for a job with a child process; the files that tell the pids of both."""
    parent, child = workshop.directory / "parent", workshop.directory / "child"
    order = workshop.order(
        f"{prelude}\n{WRITE}bash -c {shlex.quote(leaves_pid(child) + 'sleep 1000; true')} &\n"
        f"{leaves_pid(parent)}wait\nsleep 1000; sleep 1000\n"
    )
    return order, parent, child


def gone(pid: int) -> bool:
    return running(pid) is None


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "XCPU", "USR1", "USR2"])
def test_a_signal_from_the_batch_system(workshop: Workshop, name: str) -> None:
    order, parent, child = running_payload(workshop)
    job = workshop.start(order)
    pids = pid_in(parent), pid_in(child)
    number = signal.Signals[f"SIG{name}"]
    job.send_signal(number)
    assert job.wait(timeout=60) == 128 + number
    record = read_record(order.spool)
    assert record is not None
    assert (record.phase, record.exit_code, record.signal) == ("payload", 128 + number, number)
    assert all(map(gone, pids))
    assert files_below(workshop.directory / "data") == []
    assert (workshop.done / order.spool.name).exists()


@pytest.mark.slow
def test_a_payload_that_ignores_the_signal_is_killed(workshop: Workshop) -> None:
    order, parent, child = running_payload(workshop, "trap '' TERM")
    job = workshop.start(order)
    pids = pid_in(parent), pid_in(child)
    job.terminate()
    assert job.wait(timeout=60) == 143
    until(lambda: all(map(gone, pids)))


@pytest.mark.slow
def test_a_wrapper_that_is_killed_leaves_no_record_and_no_payload(workshop: Workshop) -> None:
    order, parent, child = running_payload(workshop)
    job = workshop.start(order)
    pids = pid_in(parent), pid_in(child)
    job.kill()
    job.wait(timeout=60)
    until(lambda: all(map(gone, pids)))
    assert read_record(order.spool) is None
    assert not (workshop.done / order.spool.name).exists()
    assert not order.outputs[0].final.exists()


def wait_for_session(leader: int) -> None:
    until(lambda: not session_members({leader}))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_all_or_nothing_whenever_the_job_is_ended(
    workshop: Workshop, number: signal.Signals
) -> None:
    write = 'for o in "$OUTPUT_TREE" "$OUTPUT_HIST"; do echo x > "$o"; done'
    begin = time.monotonic()
    workshop.run(workshop.order(write, run=0, outputs=("tree", "hist")))
    duration = time.monotonic() - begin
    for run in range(1, 61):
        order = workshop.order(write, run=run, outputs=("tree", "hist"))
        job = workshop.start(order)
        time.sleep(random.uniform(0, 1.2 * duration))
        with suppress(ProcessLookupError):
            os.killpg(job.pid, number)
        code = job.wait(timeout=60)
        wait_for_session(job.pid)
        record = read_record(order.spool)
        published = [plan.final.exists() for plan in order.outputs]
        if record is None:
            assert code == -number
            discard_outputs(order.spool, order.outputs)
            discard_spool(order.spool, workshop.done)
            published = [plan.final.exists() for plan in order.outputs]
            assert not order.spool.exists()
        else:
            # SIGKILL may come between the record and the end.
            assert code in (0, 128 + number, -signal.SIGKILL), record
        assert published == [record is not None and record.phase == "done"] * 2
        assert not [plan for plan in order.outputs if plan.temporary.exists()]


def test_what_the_payload_leaves_running_ends_with_it(workshop: Workshop) -> None:
    child = workshop.directory / "child"
    order = workshop.order(
        f"bash -c {shlex.quote(leaves_pid(child) + 'sleep 1000; true')} &\n"
        f"until [ -e {child} ]; do sleep 0.01; done\n{WRITE}"
    )
    assert workshop.run(order).phase == "done"
    assert gone(pid_in(child))


def test_a_payload_that_is_suspended_for_a_while_goes_on(workshop: Workshop) -> None:
    pid, go = workshop.directory / "pid", workshop.directory / "go"
    order = workshop.order(f"{leaves_pid(pid)}until [ -e {go} ]; do sleep 0.02; done\n{WRITE}")
    job = workshop.start(order)
    group = pid_in(pid)
    os.killpg(group, signal.SIGSTOP)
    until(lambda: stopped(group))
    go.touch()
    assert not (order.spool / "record").exists()
    os.killpg(group, signal.SIGCONT)
    assert job.wait(timeout=60) == 0


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


@pytest.mark.slow
def test_the_time_limit(workshop: Workshop) -> None:
    order = workshop.order(
        f"{WRITE}sleep 1000; true", requirements=Requirements(time=1, memory=10**12)
    )
    record = workshop.run(order)
    assert (record.exit_code, record.phase, record.signal) == (97, "payload", None)
    assert record.reason == "time limit of 1 s exceeded"
    assert record.start < record.stop
    assert files_below(workshop.directory / "data") == []


@pytest.mark.slow
def test_the_memory_limit_counts_child_processes(workshop: Workshop) -> None:
    hog = "python3 -c 'import time; x = b\"x\" * 60_000_000; time.sleep(1000)'"
    order = workshop.order(f"{hog} &\n{hog} &\nwait\n", requirements=Requirements(memory=10**8))
    record = workshop.run(order)
    assert (record.exit_code, record.phase) == (99, "payload")
    assert record.reason.startswith("memory limit of 100 MB exceeded: 1")
    assert record.peak_memory is not None
    assert record.peak_memory > 10**8


@pytest.mark.slow
def test_memory_that_processes_share_counts_once(workshop: Workshop) -> None:
    shared = workshop.directory / "shared.py"
    shared.write_text(
        "import os, time\nx = b'x' * 60_000_000\nfor _ in range(3):\n    if not os.fork(): break\n"
        "time.sleep(1)\nopen(os.environ['OUTPUT_TREE'], 'w').write('x')\n"
    )
    order = workshop.order(f"exec python3 {shared}", requirements=Requirements(memory=130_000_000))
    record = workshop.run(order)
    assert record.phase == "done"
    assert record.peak_memory is not None
    assert record.peak_memory > 130_000_000  # as the sum of what each process has


# --------------------------------------------------------------------------- orders


@pytest.mark.parametrize("name", ["TWO WORDS", "1ST", "", "A-B", "A;id"])
def test_variables_that_no_shell_can_hold_are_refused(workshop: Workshop, name: str) -> None:
    order = workshop.order(variables={name: "x"}, write=False)
    with pytest.raises(RecipeError, match="environment variable"):
        render_orders(order, workshop.done)


def test_outputs_with_a_line_break_are_refused(workshop: Workshop) -> None:
    order = workshop.order(data=workshop.directory / "a\nb", write=False)
    with pytest.raises(RecipeError, match="control characters"):
        render_orders(order, workshop.done)


def test_what_the_locale_cannot_write_is_refused(workshop: Workshop) -> None:
    code = f"""
from pathlib import Path
from job_orders import Workshop
from production.errors import RecipeError
try:
    Workshop(Path({str(workshop.directory)!r})).order(variables={{"OPERATOR": "M\\xfcller"}})
except RecipeError as error:
    print(error)
"""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **ascii_only},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "the locale (ascii) does not have '\\xfc': set LC_ALL=C.UTF-8" in said.stdout


# --------------------------------------------------------------------------- the code itself


def test_the_wrapper_explains_all_its_exit_codes() -> None:
    text = WRAPPER.read_text()
    header = text[: text.index("set -u")]
    assert all(f" {code} " in header for code in WRAPPER_EXIT_CODES)
    assert WRAPPER.stat().st_mode & stat.S_IXUSR


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck")
    if not shellcheck:
        pytest.skip("shellcheck is not installed")
    scripts = sorted(WRAPPER.parent.glob("*"))
    found = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_the_pid_in_the_spool_is_the_wrapper(workshop: Workshop) -> None:
    go = workshop.directory / "go"
    order = workshop.order(f"until [ -e {go} ]; do sleep 0.02; done\n{WRITE}")
    job = workshop.start(order)
    until((order.spool / "started").exists)
    pid, start, host = (order.spool / "started" / "pid").read_text().split()
    process = running(job.pid)
    assert process is not None
    assert is_alive(process)
    assert (int(pid), int(start), host) == (job.pid, process.start, os.uname().nodename)
    go.touch()
    assert job.wait(timeout=60) == 0
