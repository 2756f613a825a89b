"""Son of Grid Engine 8.1.9, after its manual pages and recorded output."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from xml.sax.saxutils import escape

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

_QSUB = (
    "-N= -P= -S= -V -cwd -e= -h -l= -notify -o= -pe== -q= -t= -tc= -terse -v= -wd= "
    # Without an effect here:
    "-ac= -j= -p= -r= -A= -M= -m= -js= -R= -w="
)
_QSTAT = "-xml -u= -s= -j= -r -ext -g= -q="
_QDEL = "-u= -f -t="
_QACCT = "-j= -o= -d="
_QALTER = "-q= -h= -u= -p= -l="
_QMOD = "-cj -sj -usj -rj"

_RESOURCES = ("h_rt", "s_rt", "h_cpu", "mem_free", "h_vmem", "hostname", "arch", "scratch")
_ENVIRONMENTS = ("smp",)
_HEAD = (
    "<?xml version='1.0'?>\n"
    '<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/'
    'schemas/qstat/qstat.xsd">\n'
)
_LINE = "=" * 62
_DOWN = (
    "error: commlib error: got select error (Connection refused)",
    'error: unable to send message to qmaster using port 6444 on host "host": got send error',
    "error: failed receiving gdi request response for mid=1 (got syncron message receive timeout "
    "error).",
)


class GridEngine(Dialect):
    """qsub, qstat, qdel, qacct, qalter, qhold, qrls, qmod."""

    name = "sge"
    commands = ("qsub", "qstat", "qdel", "qacct", "qalter", "qhold", "qrls", "qmod")
    submission = "qsub"
    query = "qstat"
    questions = ("qstat", "qacct")

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._do = {
            "qsub": (self._qsub, _QSUB),
            "qstat": (self._qstat, _QSTAT),
            "qdel": (self._qdel, _QDEL),
            "qacct": (self._qacct, _QACCT),
            "qalter": (self._qalter, _QALTER),
            "qhold": (self._qhold, ""),
            "qrls": (self._qrls, ""),
            "qmod": (self._qmod, _QMOD),
        }

    def obey(self, call: Call) -> Answer:
        """See Dialect."""
        do, known = self._do[call.name]
        try:
            options = dash_options(call.arguments, known, mixed=call.name != "qsub")
        except UnknownOptionError as error:
            raise RefusedError(f"{call.name}: Unknown option {error}\n") from None
        return do(call, options)

    def failure(self, call: Call, chance: float) -> Answer:
        """See Dialect."""
        what = _DOWN[int(chance * len(_DOWN))]
        if call.name == "qsub":
            return Answer(stderr=f"Unable to run job: {what[len('error: ') :]}\nExiting.\n", code=1)
        return Answer(stderr=f"{what}\n", code=1)

    def variables(self, job: Job) -> Mapping[str, str]:
        """See Policy."""
        return {
            "JOB_ID": str(job.number),
            "JOB_NAME": job.name,
            "QUEUE": job.queue or self.terms.queues[0],
            "NSLOTS": str(job.request.cores),
            "SGE_TASK_ID": "undefined" if job.index is None else str(job.index),
            "REQUEST": job.name,
        }

    def cannot_start(self, job: Job, error: OSError) -> None:
        """See Policy; it waits in an error state, with all that wait of its array."""
        when = time.strftime("%m/%d/%Y %H:%M:%S")
        what = f"error: can't chdir to {job.request.directory}: {error.strerror}"
        for other in self.cluster.find(job.number):
            if other.state is State.WAITING:
                other.trouble = f"{when} [{job.request.uid}:13176]: {what}"

    # ----------------------------------------------------------------- qsub

    def _qsub(self, call: Call, options: Options) -> Answer:
        if options.operands:
            raise NotSimulatedError(f"qsub {options.operands}")
        if not call.stdin:
            raise _not_run("job rejected: no script in your request")
        queue = options.get("-q")
        if queue and queue not in self.terms.queues:
            raise _not_run(f'Job was rejected because job requests unknown queue "{queue}"')
        cores = 1
        if environment := options.get("-pe"):
            name, slots = environment.split()
            if name not in _ENVIRONMENTS:
                raise _not_run(
                    f'job rejected: the requested parallel environment "{name}" does not exist'
                )
            cores = int(slots)
        asked = dict(
            word.partition("=")[::2] for text in options.all("-l") for word in text.split(",")
        )
        for resource in asked:
            if resource not in _RESOURCES:
                raise _not_run(f'unknown resource "{resource}"')
        indices = None
        if span := options.get("-t"):
            first, _, last = span.partition("-")
            indices = tuple(range(int(first), int(last or first) + 1))
            if len(indices) > self.terms.largest_array:
                raise _not_run(
                    f"job rejected: you tried to submit a job with more than "
                    f"{self.terms.largest_array} tasks"
                )
        warns = (signal.SIGUSR2,) if "-notify" in options else ()
        limit = asked.get("h_rt")
        request = Request(
            name=options.get("-N", "STDIN"),
            owner=call.user,
            uid=call.uid,
            script=f"#!{options.get('-S', '/bin/sh')}\n{call.stdin}",
            directory=options.get("-wd", call.home),
            environment=_environment(call, options),
            queue=queue,
            indices=indices,
            at_once=int(options.get("-tc", "0")) or None,
            held="u" if "-h" in options else "",
            cores=cores,
            time=_seconds(limit) if limit else None,
            project=options.get("-P"),
            output=options.get("-o", "/dev/null"),
            errors=options.get("-e", "/dev/null"),
            farewell=(*warns, signal.SIGKILL),
        )
        number = self.cluster.submit(request)[0].number
        id_ = str(number) if indices is None else f"{number}.{indices[0]}-{indices[-1]}:1"
        if "-terse" in options:
            return Answer(f"{id_}\n")
        array = "-array" if indices else ""
        return Answer(f'Your job{array} {id_} ("{request.name}") has been submitted\n')

    # ----------------------------------------------------------------- qstat

    def _qstat(self, call: Call, options: Options) -> Answer:
        jobs = [job for job in self.cluster.all() if job.state is not State.ENDED]
        if ids := options.get("-j"):
            return self._details(ids, jobs)
        user = options.get("-u", call.user)
        if user != "*":
            jobs = [job for job in jobs if job.request.owner in user.split(",")]
        wanted = options.get("-s", "prs")
        jobs = [job for job in jobs if _kind(job) in wanted]
        if "-xml" not in options:
            return Answer("".join(map(_line, jobs)))
        started = [_entry([job], options) for job in jobs if job.state is State.RUNNING]
        waiting = [_entry(some, options) for some in _together(jobs)]
        return Answer(
            f"{_HEAD}  <queue_info>\n{''.join(started)}  </queue_info>\n"
            f"  <job_info>\n{''.join(waiting)}  </job_info>\n</job_info>\n"
        )

    def _details(self, ids: str, jobs: Sequence[Job]) -> Answer:
        blocks, unknown = [], []
        for text in ids.split(","):
            some = [job for job in jobs if str(job.number) == text]
            if some:
                blocks.append(_block(some))
            else:
                unknown.append(text)
        if unknown:
            raise RefusedError(
                f"Following jobs do not exist or permissions are not sufficient: "
                f"\n{', '.join(unknown)}\n"
            )
        return Answer(f"{_LINE}\n{f'{_LINE}{chr(10)}'.join(blocks)}")

    # ----------------------------------------------------------------- qdel and others

    def _qdel(self, call: Call, options: Options) -> Answer:
        if options.given:
            raise NotSimulatedError(f"qdel {options.given}")
        said = ""
        failed = False
        for word in (part for text in options.operands for part in text.split(",")):
            jobs = self._named(word)
            if not jobs:
                said += f'denied: job "{word}" does not exist\n'
                failed = True
            for job in jobs:
                if call.uid not in (0, job.request.uid):
                    said += f"{call.user} - you do not have the necessary privileges to delete "
                    said += f'the job "{job.number}"\n'
                    failed = True
                elif job.state is State.WAITING:
                    said += f"{call.user} has deleted {_called(job)}\n"
                    self.cluster.cancel(job, call.user)
                elif job.end is not None:
                    said += f"job {job.number} is already in deletion\n"
                else:
                    said += f"{call.user} has registered the {_called(job)} for deletion\n"
                    self.cluster.cancel(job, call.user)
        return Answer(said, code=1 if failed else 0)

    def _qalter(self, call: Call, options: Options) -> Answer:
        said = ""
        failed = False
        for word in (part for text in options.operands for part in text.split(",")):
            jobs = self._named(word)
            if not jobs:
                said += f'denied: job "{word}" does not exist\n'
                failed = True
                continue
            number = jobs[0].number
            for name, value in options.given:
                if name == "-q":
                    if value not in self.terms.queues:
                        what = f'Job was rejected because job requests unknown queue "{value}"'
                        return Answer(f"{said}{what}\n", code=1)
                    for job in self.cluster.find(number):  # an array has but one list of queues
                        if job.state is State.WAITING:
                            job.queue = value
                    said += f"modified hard queue list of job {number}\n"
                elif name == "-h":
                    said += self._set_hold(jobs, value)
                else:
                    raise NotSimulatedError(f"qalter {name}")
        return Answer(said, code=1 if failed else 0)

    def _qhold(self, _call: Call, options: Options) -> Answer:
        return Answer("".join(self._set_hold(self._named(w), "u") for w in options.operands))

    def _qrls(self, _call: Call, options: Options) -> Answer:
        return Answer("".join(self._set_hold(self._named(w), "U") for w in options.operands))

    def _set_hold(self, jobs: Sequence[Job], value: str) -> str:
        said = ""
        for job in jobs:
            if value in {"u", "o", "s"}:
                self.cluster.hold(job, value)
            else:
                job.held = job.why_held = ""
            said += f"modified hold of {_called(job)}\n"
        return said

    def _qmod(self, call: Call, options: Options) -> Answer:
        said = ""
        for word in options.operands:
            for job in self._named(word):
                done = f"{call.user} - "
                if "-cj" in options:
                    job.trouble = ""
                    done += f"cleared error state of job {job.number}"
                elif "-sj" in options:
                    self.cluster.suspend(job)
                    done += f"suspended job {job.number}"
                elif "-usj" in options:
                    self.cluster.resume(job)
                    done += f"unsuspended job {job.number}"
                else:
                    raise NotSimulatedError(f"qmod {options.given}")
                said += f"{done}\n"
        return Answer(said)

    def _named(self, word: str) -> list[Job]:
        """Jobs that have not ended: 7, 7.3, 7.3-5."""
        number, _, tasks = word.partition(".")
        if not number.isdecimal():
            return []
        first, _, last = tasks.partition("-")
        indices = range(int(first), int(last or first) + 1) if tasks else None
        return [
            job
            for job in self.cluster.find(int(number))
            if job.state is not State.ENDED and (indices is None or job.index in indices)
        ]

    # ----------------------------------------------------------------- qacct

    def _qacct(self, _call: Call, options: Options) -> Answer:
        wanted = options.get("-j")
        jobs = [
            job
            for job in self.cluster.accounted()
            if job.starts and wanted in {str(job.number), job.name}
        ]
        if not jobs:
            kind = "id" if wanted.isdecimal() else "name"
            raise RefusedError(f"error: job {kind} {wanted} not found\n")
        return Answer("".join(f"{_LINE}\n{_account(job)}" for job in jobs))


# ---------------------------------------------------------------------- how things are written


def _not_run(what: str) -> RefusedError:
    return RefusedError(f"Unable to run job: {what}.\nExiting.\n")


def _environment(call: Call, options: Options) -> dict[str, str]:
    """What a job finds: little, unless it is given more."""
    given = dict(call.environment) if "-V" in options else {}
    for text in options.all("-v"):
        for word in text.split(","):
            name, equals, value = word.partition("=")
            given[name] = value if equals else call.environment.get(name, "")
    return {"HOME": call.home, "PATH": "/usr/local/bin:/bin:/usr/bin", "USER": call.user, **given}


def _seconds(text: str) -> float:
    """SECONDS or HOURS:MINUTES:SECONDS."""
    seconds = 0
    for part in text.split(":"):
        seconds = seconds * 60 + int(part or 0)
    return seconds


def _kind(job: Job) -> str:
    """As qstat -s chooses."""
    if job.state is State.WAITING:
        return "p"
    return "s" if job.suspended else "r"


def _letters(job: Job) -> str:
    if job.state is State.WAITING:
        return f"{'E' if job.trouble else ''}{'h' if job.held else ''}qw"
    return ("d" if job.end else "") + ("s" if job.suspended else "r")


def _together(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Elements of an array that wait in the same state share an entry."""
    waiting = [job for job in jobs if job.state is State.WAITING]
    for _, some in groupby(waiting, lambda job: (job.number, _letters(job))):
        yield list(some)


def _tasks(some: Sequence[Job]) -> str:
    parts = []
    for _, run in groupby(
        enumerate(job.index or 0 for job in some), lambda pair: pair[1] - pair[0]
    ):
        members = [index for _, index in run]
        parts.append(f"{members[0]}-{members[-1]}:1" if len(members) > 1 else f"{members[0]}")
    return ",".join(parts)


def _entry(some: Sequence[Job], options: Options) -> str:
    job = some[0]
    runs = job.state is State.RUNNING
    when, tag = (job.started, "JAT_start_time") if runs else (job.submitted, "JB_submission_time")
    fields = [
        ("JB_job_number", str(job.number)),
        ("JAT_prio", "0.50000"),
        ("JB_name", escape(job.name)),
        ("JB_owner", job.request.owner),
        ("state", _letters(job)),
        (tag, time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when))),
        ("queue_name", f"{job.queue or 'all.q'}@host" if runs else ""),
        ("slots", str(job.request.cores)),
    ]
    if job.index is not None:
        fields.append(("tasks", _tasks(some)))
    if "-r" in options:
        fields.append(("full_job_name", escape(job.name)))
        if job.queue:
            fields.append(("hard_req_queue", job.queue))
    kind = "running" if runs else "pending"
    inside = "".join(f"      <{name}>{text}</{name}>\n" for name, text in fields)
    return f'    <job_list state="{kind}">\n{inside}    </job_list>\n'


def _line(job: Job) -> str:
    """A job in the table of qstat, but for its head."""
    when = time.strftime("%m/%d/%Y %H:%M:%S", time.localtime(job.started or job.submitted))
    return (
        f"{job.number:>7} 0.50000 {job.name[:10]:<10} {job.request.owner[:12]:<12} "
        f"{_letters(job):<5} {when} {job.queue:<30} {job.request.cores:>5} {job.index or ''}\n"
    )


def _block(some: Sequence[Job]) -> str:
    """A job in the words of qstat -j."""
    job = some[0]
    fields = {
        "job_number": str(job.number),
        "exec_file": f"job_scripts/{job.number}",
        "submission_time": time.ctime(job.submitted),
        "owner": job.request.owner,
        "uid": str(job.request.uid),
        "account": "sge",
        "cwd": job.request.directory,
        "job_name": job.name,
        "hard_queue_list": job.queue or "NONE",
        "script_file": "STDIN",
    }
    lines = [f"{name + ':':<28}{text}" for name, text in fields.items()]
    for other in some:
        if other.trouble:
            lines.append(f"{'error reason':<15}{other.index or 1:>7}:      {other.trouble}")
    lines.append(f"{'scheduling info:':<28}queue instance dropped because it is full")
    return "".join(f"{line}\n" for line in lines)


def _called(job: Job) -> str:
    return f"job {job.number}" if job.index is None else f"job-array task {job.number}.{job.index}"


def _account(job: Job) -> str:
    """A job in the words of qacct -j."""
    fields = {
        "qname": job.queue or "all.q",
        "hostname": "host",
        "group": "users",
        "owner": job.request.owner,
        "project": job.request.project or "NONE",
        "department": "defaultdepartment",
        "jobname": job.name,
        "jobnumber": str(job.number),
        "taskid": "undefined" if job.index is None else f"{job.index}",
        "account": "sge",
        "priority": "0",
        "qsub_time": time.ctime(job.submitted),
        "start_time": time.ctime(job.started),
        "end_time": time.ctime(job.ended),
        "granted_pe": "NONE" if job.request.cores == 1 else "smp",
        "slots": str(job.request.cores),
        "failed": _failed(job),
        "exit_status": _exit_status(job),
        "maxvmem": "0.000B",
    }
    return "".join(f"{name:<13}{text:<20}\n" for name, text in fields.items())


def _failed(job: Job) -> str:
    if job.end is End.OVER_TIME:
        return "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit"
    if job.end is End.NODE_FAILED:
        return "22  : while reaping job"
    killed = job.status is not None and job.status < 0
    return "100 : assumedly after job" if killed else "0    "


def _exit_status(job: Job) -> str:
    status = job.status or 0
    if status >= 0:
        return str(status)
    return f"{128 - status:<21}({signal.strsignal(-status)})"
