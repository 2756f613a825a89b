"""LSF as volclava 2.2 speaks it, after its manual pages and recorded output, defects included.

Reproduced are: DONE for a job whose shell was killed by a signal that LSF did not send; an array
that is too large taken, without a word, for a single job; exit codes that say "failed" when one of
many ids is unknown; commands that never return when the daemons are down.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from simulated.call import (
    Answer,
    Call,
    NotSimulatedError,
    Options,
    RefusedError,
    UnknownOptionError,
    dash_options,
)
from simulated.cluster import Cluster, End, Job, Request, State
from simulated.dialect import Dialect

_BSUB = (
    "-B -H -N -r -x -J= -P= -M= -R= -W= -e= -n= -o= -q= "
    # Without an effect here:
    "-Jd= -L= -u= -m= -sp= -C= -D= -F= -S= -v= -c="
)
_BJOBS = "-a -A -w -l -UF -d -p -r -s -json -o= -J= -P= -m= -q= -u="
_BKILL = "-l -J= -q= -u= -m= -r -s="
_BSWITCH = "-J= -q= -u= -m="
_BHIST = "-a -l -w -J= -n= -P= -q= -u="
_FIELDS = (
    *("JOBID", "USER", "STAT", "QUEUE", "FROM_HOST", "EXEC_HOST", "JOB_NAME", "SUBMIT_TIME"),
)
_LARGEST = 10_000  # elements
_WIDTH = 58  # of the text of an event in bhist -l
_MARGIN = " " * 21
_HOST = "vm"
_DOWN = "Failed in an LSF library call: LIM is down; try later"
_USAGE = "Usage: bsub [-h] [-V] [-x] [-H] [-r] [-N] [-B] [-I | -K | -Ip | -Is]\n"
_SUMMARY = "  PEND     PSUSP    RUN      USUSP    SSUSP    UNKWN    TOTAL\n"


class Lsf(Dialect):
    """bsub, bjobs, bkill, bswitch, bhist, bstop, bresume."""

    name = "lsf"
    commands = ("bsub", "bjobs", "bkill", "bswitch", "bhist", "bstop", "bresume")
    submission = "bsub"
    query = "bjobs"
    questions = ("bjobs", "bhist")

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._do: Mapping[str, tuple[Callable[[Call, Options], Answer], str]] = {
            "bsub": (self._bsub, _BSUB),
            "bjobs": (self._bjobs, _BJOBS),
            "bkill": (self._bkill, _BKILL),
            "bswitch": (self._bswitch, _BSWITCH),
            "bhist": (self._bhist, _BHIST),
            "bstop": (self._bstop, ""),
            "bresume": (self._bresume, ""),
        }

    def obey(self, call: Call) -> Answer:
        """See Dialect."""
        do, known = self._do[call.name]
        arguments = [part for word in call.arguments for part in _split(call.name, word)]
        try:
            options = dash_options(arguments, known, mixed=call.name == "bjobs")
        except UnknownOptionError as error:
            letter = str(error)[1:2]
            said = f"{call.name}: illegal option -- {letter}\n{_USAGE}"
            if call.name == "bjobs":
                said = (
                    f"bjobs: invalid option -- '{letter}'\nUsage: bjobs [-h] [-V] [-w |-l |-UF]\n"
                )
            raise RefusedError(said, 255) from None
        return do(call, options)

    def failure(self, call: Call, chance: float) -> Answer | None:
        """See Dialect; only who asks for it gets an answer at all."""
        tries = call.environment.get("LSB_NTRIES", "")
        return Answer(stderr=f"{_DOWN}\n", code=255) if tries.isdecimal() else None

    def variables(self, job: Job) -> Mapping[str, str]:
        """See Policy."""
        return {
            "LSB_JOBID": str(job.number),
            "LSB_JOBINDEX": str(job.index or 0),
            "LSB_JOBNAME": _name(job),
            "LSB_QUEUE": job.queue,
            "LSB_HOSTS": _HOST,
            "LSB_SUB_HOST": _HOST,
        }

    # ----------------------------------------------------------------- bsub

    def _bsub(self, call: Call, options: Options) -> Answer:
        if options.operands:
            raise NotSimulatedError(f"bsub {options.operands}")
        if not call.stdin.strip():
            raise _not_submitted("No command is specified")
        queue = options.get("-q", self.terms.queues[0])
        if queue not in self.terms.queues:
            raise _not_submitted(f"{queue}: No such queue")
        cores = int(options.get("-n", "1").partition(",")[0])
        if cores > self.terms.node_cores:
            raise _not_submitted("Too many processors requested")
        if options.get("-R").count("[") != options.get("-R").count("]"):
            raise _not_submitted("Bad resource requirement syntax")
        limit = options.get("-c")
        if limit and not re.fullmatch(r"(\d+:)?\d+(/\w+)?", limit):
            raise _not_submitted(f"{limit}: Bad CPULIMIT specification")
        name, indices, at_once = _array(options.get("-J", call.stdin.splitlines()[0]))
        request = Request(
            name=name,
            owner=call.user,
            uid=call.uid,
            script=call.stdin if call.stdin.startswith("#!") else f"#!/bin/sh\n{call.stdin}",
            directory=call.directory,
            environment=call.environment,
            queue=queue,
            indices=indices,
            at_once=at_once,
            held="user" if "-H" in options else "",
            cores=cores,
            time=_minutes(options.get("-W")),
            project=options.get("-P", "default"),
            output=options.get("-o", "/dev/null"),
            errors=options.get("-e", "/dev/null"),
            farewell=(signal.SIGINT, signal.SIGTERM, signal.SIGKILL),
        )
        number = self.cluster.submit(request)[0].number
        where = "" if "-q" in options else "default "
        return Answer(f"Job <{number}> is submitted to {where}queue <{queue}>.\n")

    # ----------------------------------------------------------------- bjobs

    def _bjobs(self, call: Call, options: Options) -> Answer:
        names = [name.upper() for name in options.get("-o").split()]
        for name in names:
            if name not in _FIELDS:
                said = f"<{name}> in the format string is not a valid field name.\n"
                raise RefusedError(said, 99)
        finished = "-a" in options or bool(options.operands)
        jobs = [job for job in self.cluster.listed() if finished or job.state is not State.ENDED]
        unknown = []
        if options.operands:
            chosen = []
            for text in options.operands:
                named = [job for job in self._named(text) if job in jobs]
                chosen += named
                if not named:
                    unknown.append(text)
            jobs = chosen
        user = options.get("-u", call.user)
        if user != "all" and not options.operands:
            jobs = [job for job in jobs if job.request.owner == user]
        if name := options.get("-J"):
            jobs = [
                job
                for job in jobs
                if name == _name(job) or fnmatchcase(job.name, name)  # * stands for anything
            ]
            if not jobs:
                raise RefusedError(f"Job <{name}> is not found\n", 255)
        if queue := options.get("-q"):
            jobs = [job for job in jobs if job.queue == queue]
        for letter, wanted in (("-r", "RUN"), ("-p", "PEND")):
            if letter in options:
                jobs = [job for job in jobs if _stat(job) == wanted]
        jobs.sort(key=lambda job: job.state is State.ENDED)
        code = 255 if unknown else 0
        if "-json" in options:
            return Answer(_json(names, jobs, unknown), code=code if jobs else 255)
        said = "".join(f"Job <{text}> is not found\n" for text in unknown)
        if not jobs:
            nothing = "No job found\n" if "-a" in options else "No unfinished job found\n"
            return Answer(stderr=said or nothing, code=code or 254)
        if "-l" in options or "-UF" in options:
            return Answer(f"{'-' * 78}\n".join(map(_long, jobs)), said, code)
        if names:
            lines = [
                " ".join(names),
                *(" ".join(_fields(job, "-")[n] for n in names) for job in jobs),
            ]
        else:
            lines = [_row(dict(zip(_FIELDS, _FIELDS, strict=True)))]
            lines += [_row(_fields(job, "   -" if "-w" in options else "")) for job in jobs]
        return Answer("".join(f"{line}\n" for line in lines), said, code)

    def _named(self, text: str) -> list[Job]:
        """7 or 7[3]."""
        match = re.fullmatch(r"(\d+)(?:\[(\d+)\])?", text)
        if not match:
            raise RefusedError(f"{text}: Illegal job ID.\n", 255)
        return self.cluster.find(int(match[1]), int(match[2]) if match[2] else None)

    # ----------------------------------------------------------------- bkill and others

    def _each(
        self, call: Call, texts: Sequence[str], do: Callable[[Job], tuple[str, bool]]
    ) -> Answer:
        """Do something with jobs; it fails when it fails for one of them."""
        out = err = ""
        for text in texts:
            jobs = self._named(text)
            if not jobs or not self.terms.remembers:
                jobs = [job for job in jobs if job.state is not State.ENDED]
            if not jobs:
                err += f"Job <{text}>: No matching job found\n"
            for job in jobs:
                if job.state is State.ENDED:
                    said, well = "Job has already finished", False
                elif call.uid not in (0, job.request.uid):
                    said, well = "User permission denied", False
                else:
                    said, well = do(job)
                if well:
                    out += f"Job <{_id(job)}> {said}\n"
                else:
                    err += f"Job <{_id(job)}>: {said}\n"
        return Answer(out, err, 255 if err else 0)

    def _bkill(self, call: Call, options: Options) -> Answer:
        texts = list(options.operands)
        active = [job for job in self.cluster.listed() if job.state is not State.ENDED]
        mine = [job for job in active if job.request.owner == call.user]
        if name := options.get("-J"):
            texts = [_id(job) for job in mine if name in {job.name, _name(job)}]
            if not texts:
                raise RefusedError(f"Job <{name}> is not found\n", 255)
        elif texts == ["0"]:
            texts = [_id(job) for job in mine]
            if not texts:
                raise RefusedError("No unfinished job found\n", 255)

        def kill(job: Job) -> tuple[str, bool]:
            self.cluster.cancel(job, call.user)
            return "is being terminated", True

        return self._each(call, texts, kill)

    def _bswitch(self, call: Call, options: Options) -> Answer:
        if options.given or not options.operands:
            raise NotSimulatedError(f"bswitch {options}")
        queue, *texts = options.operands
        if queue not in self.terms.queues:
            raise RefusedError(f"{queue}: No such queue\n", 255)

        def switch(job: Job) -> tuple[str, bool]:
            job.queue = queue
            return f"is switched to queue <{queue}>", True

        return self._each(call, texts, switch)

    def _bstop(self, call: Call, options: Options) -> Answer:
        def stop(job: Job) -> tuple[str, bool]:
            if job.state is State.WAITING:
                self.cluster.hold(job, "user")
            else:
                self.cluster.suspend(job)
            return "is being stopped", True

        return self._each(call, options.operands, stop)

    def _bresume(self, call: Call, options: Options) -> Answer:
        def resume(job: Job) -> tuple[str, bool]:
            if job.state is State.WAITING:
                self.cluster.release(job)
            else:
                self.cluster.resume(job)
            return "is being resumed", True

        return self._each(call, options.operands, resume)

    # ----------------------------------------------------------------- bhist

    def _bhist(self, call: Call, options: Options) -> Answer:
        if "-l" not in options:
            raise NotSimulatedError("bhist without -l")
        out = err = ""
        for text in options.operands:
            jobs = self._named(text)
            if not jobs:
                err += f"Job <{text}> is not found\n"
            out += "".join(_history(job, job in self.cluster.accounted()) for job in jobs)
        if not out:
            raise RefusedError(err or "No matching job found\n", 255)
        return Answer(out, err)


# ---------------------------------------------------------------------- how things are written


def _split(command: str, word: str) -> list[str]:
    """Letters that stand together: bsub takes ``-cwd`` for ``-c wd``."""
    known = {word.rstrip("=") for word in f"{_BSUB} {_BJOBS} {_BHIST}".split()}
    if command == "bsub" and word.startswith("-c") and word not in known:
        return ["-c", word[2:]]
    return [word]


def _not_submitted(what: str) -> RefusedError:
    return RefusedError(f"{what}. Job not submitted.\n", 255)


def _array(text: str) -> tuple[str, tuple[int, ...] | None, int | None]:
    """A name with its indices and how many may run at once; what is no good list is a name."""
    match = re.fullmatch(r"([^\[]*)\[([\d,:-]+)\](?:%(\d+))?", text)
    if not match:
        return text, None, None
    indices: list[int] = []
    for part in match[2].split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if not span or int(span[1]) < 1:
            return text, None, None
        indices += range(int(span[1]), int(span[2] or span[1]) + 1, int(span[3] or 1))
    if not indices or max(indices) > _LARGEST:
        return text, None, None
    return match[1], tuple(indices), int(match[3]) if match[3] else None


def _minutes(text: str) -> float | None:
    """[HOURS:]MINUTES in seconds."""
    if not text:
        return None
    hours, _, minutes = text.partition("/")[0].rpartition(":")
    return 60.0 * (60 * int(hours or 0) + int(minutes))


def _id(job: Job) -> str:
    return str(job.number) if job.index is None else f"{job.number}[{job.index}]"


def _name(job: Job) -> str:
    return job.name if job.index is None else f"{job.name}[{job.index}]"


def _exit_code(job: Job) -> int:
    """0 for well: LSF knows only of the signals that it has sent itself."""
    status = job.status
    if job.end is End.OVER_TIME:
        return 140
    if job.end is End.CANCELLED and (status is None or status != 0):
        return 130
    return max(0, status or 0)


def _stat(job: Job) -> str:
    if job.state is State.WAITING:
        return "PSUSP" if job.held else "PEND"
    if job.state is State.RUNNING:
        return "USUSP" if job.suspended else "RUN"
    return "EXIT" if _exit_code(job) else "DONE"


def _fields(job: Job, nowhere: str) -> dict[str, str]:
    return {
        "JOBID": str(job.number),
        "USER": job.request.owner,
        "STAT": _stat(job),
        "QUEUE": job.queue,
        "FROM_HOST": _HOST,
        "EXEC_HOST": _HOST if job.starts else nowhere,
        "JOB_NAME": _name(job),
        "SUBMIT_TIME": time.strftime("%b %d %H:%M", time.localtime(job.submitted)),
    }


def _row(fields: Mapping[str, str]) -> str:
    job, user, stat, queue, from_, exec_, name, when = (fields[field] for field in _FIELDS)
    return f"{job:<7} {user:<7} {stat:<5} {queue:<10} {from_:<11} {exec_:<11} {name:<10} {when}"


def _json(names: Sequence[str], jobs: Sequence[Job], unknown: Sequence[str]) -> str:
    """In the form of the program that printed it, tabs and all."""
    records = [{name: _fields(job, "")[name] for name in names} for job in jobs]
    records += [{"JOBID": text, "ERROR": f"Job <{text}> is not found"} for text in unknown]
    written = []
    for record in records:
        inside = ",\n".join(f'\t\t\t"{key}":\t"{value}"' for key, value in record.items())
        written.append(f"{{\n{inside}\n\t\t}}")
    return (
        f'{{\n\t"COMMAND":\t"bjobs",\n\t"JOBS":\t{len(records)},\n\t"RECORDS":\t'
        f"[{', '.join(written)}]\n}}\n"
    )


def _stamp(when: float) -> str:
    return time.strftime("%a %b %d %H:%M:%S", time.localtime(when))


def _ending(job: Job) -> str:
    code = _exit_code(job)
    how = f"Exited with exit code {code}." if code else "Done successfully."
    return f"{how} The CPU time used is 0.0 seconds"


def _long(job: Job) -> str:
    """A job in the words of bjobs -l."""
    command = job.request.script.splitlines()[0]
    lines = [
        "",
        f"Job <{_id(job)}>, Job Name <{_name(job)}>, User <{job.request.owner}>, "
        f"Project <{job.request.project}>, Status <{_stat(job)}>, Queue <{job.queue}>, "
        f"Command <{command}>",
        f"{_stamp(job.submitted)}: Submitted from host <{_HOST}>, CWD </>;",
    ]
    if job.state is State.WAITING:
        lines += [" PENDING REASONS:", " New job is waiting for scheduling: 1 host;"]
    if job.starts:
        who = "Started" if job.index is None else f"[{job.index}] started"
        lines.append(
            f"{_stamp(job.started)}: {who} on <{_HOST}>, Execution Home </>, Execution CWD </>;"
        )
    if job.state is State.ENDED:
        lines.append(f"{_stamp(job.ended)}: {_ending(job)}.")
    lines += ["", " SCHEDULING PARAMETERS:", " loadSched   -     -     -     -", ""]
    return "\n".join(lines)


def _history(job: Job, accounted: bool) -> str:
    """A job in the words of bhist -l."""
    command = job.request.script.splitlines()[0]
    lines = [
        "",
        f"Job <{_id(job)}>, Job Name <{_name(job)}>, User <{job.request.owner}>, "
        f"Project <{job.request.project}>, Command <{command}>",
        f"{_stamp(job.submitted)}: Submitted from host <{_HOST}>, to Queue <{job.queue}>, CWD </>;",
    ]
    events = []
    if job.starts:
        events += [
            (job.started, f"Dispatched to <{_HOST}>;"),
            (job.started, f"Starting (Pid {job.pid});"),
            (
                job.started,
                f"Running with execution home </>, Execution CWD </>, Execution Pid <{job.pid}>;",
            ),
        ]
    if accounted:
        if job.end is End.CANCELLED:
            who = f"Signal <KILL> requested by user or administrator <{job.ended_by}>;"
            events.append((job.ended, who))
        events.append((job.ended, f"{_ending(job)};"))
    lines += [line for when, text in events for line in _wrapped(when, text)]
    now = job.ended or time.time()
    waited = int((job.started or now) - job.submitted)
    ran = int(now - job.started) if job.started else 0
    lines += ["", f"Summary of time in seconds spent in various states by  {_stamp(now)}"]
    figures = "".join(f"{number:<9}" for number in (waited, 0, ran, 0, 0, 0, waited + ran))
    return "\n".join([*lines, f"{_SUMMARY}  {figures}", ""]) + "\n"


def _wrapped(when: float, text: str) -> list[str]:
    """An event's lines: words are broken, and a full line is followed by an empty one."""
    parts = [text[start : start + _WIDTH] for start in range(0, len(text) + 1, _WIDTH)]
    return [f"{_stamp(when)}: {parts[0]}", *(f"{_MARGIN}{part}" for part in parts[1:])]
